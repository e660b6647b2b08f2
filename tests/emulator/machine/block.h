// Runs the thread blocks of a launch, one at a time; every host thread of a launch has its own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cost/clock.h"
#include "machine/findings.h"
#include "machine/program.h"
#include "machine/shared_memory.h"
#include "machine/warp.h"
#include "memory/arena.h"

namespace emulator {

struct Launch {
  const Program* program = nullptr;
  uint32_t blocks[3] = {1, 1, 1}, threads[3] = {1, 1, 1};
  uint32_t dynamic_shared = 0;
  std::vector<uint8_t> parameters;
  uint64_t budget = 0;               // warp instructions of one block; more is an endless loop
  bool timed = false, cold = false;  // a clock for every block; it finds nothing in L2
  bool partial = false;  // blocks are left out, here and before: what they would write is not there

  uint64_t block_count() const { return uint64_t{blocks[0]} * blocks[1] * blocks[2]; }
  uint32_t thread_count() const { return threads[0] * threads[1] * threads[2]; }
};

class Block {
 public:
  explicit Block(const Launch& launch);
  void run(uint64_t index);  // a Trap becomes a finding

  const Launch& launch() const { return launch_; }
  SharedMemory& shared() { return shared_; }
  BlockClock* clock() { return clock_.get(); }  // null where the launch is not timed
  const Allocation& allocation_of(uint64_t address, uint64_t bytes);
  // One finding at the instruction that runs.
  void object(const Warp& warp, Mask lanes, const char* what, const std::string& detail = "");

  Findings findings;
  uint64_t instructions = 0;  // of warps, all blocks together

 private:
  void start_warps();
  void set_specials(Warp& warp);
  void run_warps();
  void open_barrier();
  void run_warp(Warp& warp);
  bool run_group(Warp& warp, LaneGroup group);
  bool step(Warp& warp, LaneGroup& group);
  void take_branch(Warp& warp, LaneGroup& group, const Instruction& in, Mask taken);
  void leave(Warp& warp, LaneGroup& group, const Instruction& in, Mask lanes);
  void run_warp_operation(Warp& warp, LaneGroup& group, const Instruction& in, Mask lanes);
  Mask ready(Warp& warp, const Instruction& in, Mask lanes);
  bool reach_barrier(Warp& warp, LaneGroup& group, const Instruction& in, Mask lanes);

  const Launch& launch_;
  std::vector<Warp> warps_;
  std::vector<uint8_t> registers_;
  SharedMemory shared_;
  std::unique_ptr<BlockClock> clock_;
  Allocation recent_[4];  // kernels go back and forth between a few arrays
  int next_recent_ = 0;
  uint64_t index_ = 0, limit_ = 0;
  int at_ = -1;  // the instruction that runs
};

}  // namespace emulator
