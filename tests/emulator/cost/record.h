// What launches have cost while somebody asked: for benchmarks/predict, which makes times of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cost/clock.h"
#include "machine/block.h"

namespace emulator {

struct MachineCode {
  int registers = 0, stack = 0, instructions = 0;  // registers, bytes of stack a thread; in memory
};

struct LaunchCost {
  std::string kernel;
  uint64_t blocks = 0;
  uint32_t threads = 0, shared = 0;
  uint32_t local = 0;  // bytes a thread that the source itself keeps in memory
  MachineCode code;
  std::vector<BlockCost> run;  // of the blocks that were run, in their order
};

struct Recorder {
  bool on = false;
  uint64_t most_blocks =
      0;  // of a launch: the others are left out, and nothing is written for them
  std::vector<LaunchCost> launches;
};

Recorder& recorder();
std::string as_json(const std::vector<LaunchCost>& launches);

}  // namespace emulator
