// The time that a thread block would take on a multiprocessor of its own, by a model: not a simulation
// of the machine code.
//
// Within a basic block instructions wait for their operands and for memory in order, as if the compiler
// had put them into the best order; no instruction moves over a branch or a barrier. Between two
// barriers of the block it takes as long as its slowest warp, or as long as its busiest unit, whichever
// is more.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_set>
#include <vector>

#include "cost/cost.h"
#include "machine/warp.h"

namespace emulator {

// Where the cycles of a chain of dependences go.
enum class Part : uint8_t { issue, arithmetic, special, shared, shuffle, global, control, unit };
constexpr int kParts = 8;
constexpr const char* kPartNames[kParts] = {
    "issue",    "arithmetic",    "special functions",     "shared memory",
    "shuffles", "global memory", "barriers and branches", "a full unit"};

// A moment, and what the time until then was spent on: the parts add up to it.
struct Moment {
  float time = 0;
  std::array<float, kParts> parts{};
  void add(Part part, float cycles) {
    time += cycles;
    parts[static_cast<size_t>(part)] += cycles;
  }
  void join(const Moment& other) {
    if (other.time > time) *this = other;
  }
};

// What all warps of a multiprocessor share.
enum class Unit : uint8_t { issue, integer, float64, special, memory_pipe, second_level };
constexpr int kUnits = 6;
constexpr const char* kUnitNames[kUnits] = {
    "issue", "integer units", "float64 units", "special function units", "shared memory and L1",
    "L2"};

// Of one block or of several. `full`: cycles of its busiest unit, which blocks on one multiprocessor
// share, whereas they overlap their waiting.
struct BlockCost {
  Moment alone;
  double full = 0;
  std::array<uint64_t, kClasses> counts{};  // warp instructions
  std::array<double, kUnits> units{};       // cycles that each works
  double slots = 0, shared_waves = 0, shared_least = 0;
  uint64_t sectors = 0, first_sectors = 0, barriers = 0;
};

class BlockClock {
 public:
  // cold: what a block has not touched yet lies in the device's memory, not in L2
  BlockClock(size_t warps, uint32_t register_bytes, bool cold);
  void start();
  void issue(const Warp& warp, const Instruction& instruction, Mask lanes, bool taken);
  void touch_shared(const uint64_t* offset, Mask lanes, uint32_t bytes);
  void touch_global(const uint64_t* address, Mask lanes, uint32_t bytes, bool store);
  void end_interval(bool barrier);  // all warps wait, or are done
  const BlockCost& cost() const { return cost_; }

 private:
  struct WarpClock {
    Moment begin, latest;           // of the basic block; of what it has issued
    float slots = 0;                // of the basic block
    Moment stored[4], accessed[4];  // last store, last access, by Space
    std::vector<Moment> ready;      // by register
  };
  void use(Unit unit, double cycles) { used_[static_cast<size_t>(unit)] += cycles; }
  void wait_for(Moment& t, const WarpClock& w, Slot slot) const;
  void wait_for_operands(Moment& t, const WarpClock& w, const Instruction& in) const;
  Moment order_memory(WarpClock& w, const Instruction& in, Moment t) const;
  void set_results(WarpClock& w, const Instruction& in, const Moment& done) const;
  static void finish_basic_block(WarpClock& w, Moment t, bool taken);
  Part part_of(Class what) const;
  float latency_of(const Cost& cost) const;
  void count(const Instruction& in);

  std::vector<WarpClock> warps_;
  bool cold_;
  BlockCost cost_;
  std::array<double, kUnits> used_{};  // in this interval, cycles
  Moment interval_;                    // its begin
  std::unordered_set<uint64_t> seen_;
  // of the access that is being issued
  float waves_ = 0;
  Class touched_ = Class::global;
  bool first_touch_ = false;
};

}  // namespace emulator
