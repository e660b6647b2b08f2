// A kernel as the machine runs it: instructions whose operands are places in the register file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cost/cost.h"

namespace emulator {

struct Warp;
struct Instruction;

using Mask = uint32_t;  // one bit a lane
constexpr int kLanes = 32;
constexpr Mask kAllLanes = ~0u;

// A register is 32 values of four or eight bytes, one a lane; a slot is the byte where they begin.
using Slot = uint32_t;
constexpr Slot kNoSlot = ~0u;

using Run = void (*)(Warp&, const Instruction&, Mask);

enum class Kind : uint8_t {
  compute,
  memory,
  branch,  // from here on the scheduler looks for lanes to join after the instruction
  exit,
  warp_operation,  // waits for the lanes that it names
  block_barrier,
};
enum class Space : uint8_t { generic, global, shared, local };
enum class Shuffle : uint8_t { index, butterfly, up, down };
enum class Vote : uint8_t { none, any, all, uniform, ballot, count };

struct Instruction {
  Run run = nullptr;
  Kind kind = Kind::compute;
  Slot guard = kNoSlot;
  bool guard_negated = false;
  Slot to = kNoSlot, second_to = kNoSlot, from[4] = {kNoSlot, kNoSlot, kNoSlot, kNoSlot};
  Slot members = kNoSlot;                   // of a warp operation
  int target = -1;                          // of a branch
  bool wide_to = false, wide_from = false;  // a conversion's registers may be wider than its types

  // memory and parameters: `count` elements of `bytes` bytes at from[0] + offset
  Space space = Space::generic;
  bool store = false, atomic = false, is_signed = false, wide_address = true;
  uint8_t bytes = 0, count = 1;
  int64_t offset = 0;
  Slot values[4] = {};
  bool wide_value[4] = {};

  Shuffle shuffle = Shuffle::index;
  Vote vote = Vote::none;
  bool vote_negated = false;

  Cost cost;
  uint32_t line = 0;
  uint16_t file = 0;
};

struct Constant {
  Slot slot;
  uint64_t value;
  bool wide;
};

enum class Special : uint8_t { thread, threads, block, blocks, lane, warp };
struct SpecialRegister {
  Slot slot;
  Special what;
  int axis;
};

struct Parameter {
  uint32_t offset, bytes;
};

struct Program {
  std::string name;
  std::vector<Instruction> code;
  std::vector<Constant> constants;
  std::vector<SpecialRegister> specials;
  std::vector<Parameter> parameters;
  std::vector<std::string> files;
  uint32_t register_bytes = 0, static_shared = 0, local_bytes = 0, parameter_bytes = 0;
  uint32_t max_threads = 1024;  // __launch_bounds__
};

}  // namespace emulator
