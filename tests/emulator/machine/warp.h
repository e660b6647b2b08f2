// A warp: 32 lanes with their registers, grouped by where they stand in the program.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "machine/program.h"

namespace emulator {

class Block;

struct LaneGroup {
  int at;  // index of the next instruction
  Mask lanes;
  bool waits;  // for lanes that are elsewhere
};

struct Warp {
  Block* block = nullptr;
  uint16_t number = 0;
  uint8_t* registers = nullptr;
  Mask valid = 0, live = 0;  // lanes that exist; of these, lanes that have not left
  std::vector<LaneGroup> groups;
  uint32_t interval = 1;  // counts barriers: of the warp and of the block
  std::vector<uint8_t> local, local_written;
  bool at_barrier = false, done = false;
  // what it brings to a block barrier that votes
  const Instruction* barrier = nullptr;
  Mask votes = 0;
};

template <class T>
T* lanes_of(Warp& w, Slot slot) {
  return reinterpret_cast<T*>(w.registers + slot);
}

// The lanes of `lanes` whose predicate is set.
inline Mask set_lanes(Warp& w, Slot predicate, Mask lanes) {
  const uint32_t* p = lanes_of<uint32_t>(w, predicate);
  Mask set = 0;
  for (int l = 0; l < kLanes; ++l) set |= (p[l] & 1) << l;
  return set & lanes;
}

inline int first_lane(Mask lanes) { return std::countr_zero(lanes); }

template <class F>
void each_lane(Mask lanes, F f) {
  for (Mask left = lanes; left != 0; left &= left - 1) f(first_lane(left));
}

// shuffles, votes (warp_operations.cpp)
void shuffle(Warp& warp, const Instruction& instruction, Mask lanes);
void vote(Warp& warp, const Instruction& instruction, Mask lanes);
// loads, stores, atomics (access.cpp) and kernel parameters
void access_memory(Warp& warp, const Instruction& instruction, Mask lanes);
void load_parameter(Warp& warp, const Instruction& instruction, Mask lanes);

}  // namespace emulator
