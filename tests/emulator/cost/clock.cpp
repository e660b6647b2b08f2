#include "cost/clock.h"

#include <algorithm>

namespace emulator {
namespace {

constexpr uint32_t kRegisterBytes = kLanes * 4, kSector = 32, kBanks = 32, kWord = 4;
// Of a multiprocessor of sm_90, a cycle: instructions that are issued, and what its units take.
// Integers have a unit that takes half a warp and share the one of multiplications.
constexpr double kSchedulers = 4, kInteger = 3, kFloat64 = 2, kSpecial = .5, kBytesOfL2 = 64;

size_t index_of(Slot slot) { return slot / kRegisterBytes; }

}  // namespace

BlockClock::BlockClock(size_t warps, uint32_t register_bytes, bool cold)
    : warps_(warps), cold_(cold) {
  for (WarpClock& w : warps_) w.ready.resize(register_bytes / kRegisterBytes + 2);
}

void BlockClock::start() {
  cost_ = {}, used_ = {}, interval_ = {};
  seen_.clear();
  for (WarpClock& w : warps_) {
    w.begin = w.latest = {}, w.slots = 0;
    std::fill_n(w.stored, 4, Moment{}), std::fill_n(w.accessed, 4, Moment{});
    std::fill(w.ready.begin(), w.ready.end(), Moment{});
  }
}

void BlockClock::wait_for(Moment& t, const WarpClock& w, Slot slot) const {
  if (slot != kNoSlot) t.join(w.ready[index_of(slot)]);
}

void BlockClock::wait_for_operands(Moment& t, const WarpClock& w, const Instruction& in) const {
  wait_for(t, w, in.guard);
  for (const Slot slot : in.from) wait_for(t, w, slot);
  if (in.kind == Kind::warp_operation) wait_for(t, w, in.members);
  if (in.kind == Kind::memory && (in.store || in.atomic))
    for (uint32_t v = 0; v < in.count; ++v) wait_for(t, w, in.values[v]);
}

// Loads keep behind stores of their space, stores behind everything there.
Moment BlockClock::order_memory(WarpClock& w, const Instruction& in, Moment t) const {
  const auto space = static_cast<size_t>(in.space);
  t.join(w.stored[space]);
  if (in.store || in.atomic) {
    t.join(w.accessed[space]);
    w.stored[space].join(t);
  }
  w.accessed[space].join(t);
  return t;
}

void BlockClock::set_results(WarpClock& w, const Instruction& in, const Moment& done) const {
  if (in.to != kNoSlot) w.ready[index_of(in.to)] = done;
  if (in.second_to != kNoSlot) w.ready[index_of(in.second_to)] = done;
  if (in.kind == Kind::memory && !in.store && !in.atomic)
    for (uint32_t v = 0; v < in.count; ++v) w.ready[index_of(in.values[v])] = done;
}

// At a branch or a barrier all of the basic block has been issued.
void BlockClock::finish_basic_block(WarpClock& w, Moment t, bool taken) {
  t.join(w.latest);
  Moment issued = w.begin;
  issued.add(Part::issue, w.slots);
  t.join(issued);
  if (taken) t.add(Part::control, Latency::taken_branch);
  w.begin = w.latest = t;
  w.slots = 0;
}

Part BlockClock::part_of(Class what) const {
  switch (what) {
    case Class::special:
      return Part::special;
    case Class::shuffle:
      return Part::shuffle;
    case Class::shared:
      return Part::shared;
    case Class::global:
    case Class::local:
      return Part::global;
    case Class::branch:
    case Class::barrier:
      return Part::control;
    default:
      return Part::arithmetic;
  }
}

float BlockClock::latency_of(const Cost& cost) const {
  if (cost.what == Class::shared) return Latency::shared + waves_ - 1;
  if (cost.what != Class::global) return cost.latency;
  if (touched_ == Class::shared) return Latency::shared + waves_ - 1;  // by a generic address
  const float from = first_touch_ ? (cold_ ? Latency::far : Latency::second_level) : Latency::near;
  return from + std::max(0.0f, waves_ - 1);
}

void BlockClock::count(const Instruction& in) {
  ++cost_.counts[static_cast<size_t>(in.cost.what)];
  cost_.slots += in.cost.slots;
  use(Unit::issue, in.cost.slots / kSchedulers);
  switch (in.cost.what) {
    case Class::integer:
    case Class::convert:
      use(Unit::integer, in.cost.slots / kInteger);
      break;
    case Class::float64:
      use(Unit::float64, in.cost.slots / kFloat64);
      break;
    case Class::special:
      use(Unit::special, 1 / kSpecial);
      break;
    case Class::shuffle:
      use(Unit::memory_pipe, 1);
      break;
    default:
      break;
  }
}

void BlockClock::issue(const Warp& warp, const Instruction& in, Mask lanes, bool taken) {
  WarpClock& w = warps_[warp.number];
  count(in);
  Moment t = w.begin;
  wait_for_operands(t, w, in);
  w.slots += in.cost.slots;
  if (in.kind == Kind::branch || in.kind == Kind::exit || in.kind == Kind::block_barrier) {
    finish_basic_block(w, t, taken);
    return;
  }
  if (in.kind == Kind::memory && in.cost.what != Class::move) t = order_memory(w, in, t);
  if (in.cost.what == Class::barrier)  // of the warp: all accesses before it, then all after it
    for (size_t s = 0; s < 4; ++s) t.join(w.accessed[s]), w.stored[s].join(t);
  w.latest.join(t);
  if (lanes == 0) return;
  Moment done = t;
  const Class what = in.cost.what == Class::global ? touched_ : in.cost.what;
  done.add(part_of(what), latency_of(in.cost));
  set_results(w, in, done);
}

// Wavefronts: the most words that one bank has to give. 8 and 16 bytes a lane go by halves and
// quarters of a warp.
void BlockClock::touch_shared(const uint64_t* offset, Mask lanes, uint32_t bytes) {
  const uint32_t phases = bytes <= 4 ? 1 : bytes / 4, each = kLanes / phases;
  waves_ = 0, touched_ = Class::shared;
  for (uint32_t phase = 0; phase < phases; ++phase) {
    uint64_t words[kLanes * 4];
    uint32_t count = 0;
    for (uint32_t l = phase * each; l < (phase + 1) * each; ++l)
      if (lanes >> l & 1)
        for (uint32_t k = 0; k < std::max(bytes, kWord); k += kWord)
          words[count++] = (offset[l] + k) / kWord;
    if (count == 0) continue;
    std::sort(words, words + count);
    const auto* end = std::unique(words, words + count);
    uint32_t of_bank[kBanks] = {}, most = 0;
    for (const uint64_t* word = words; word != end; ++word)
      most = std::max(most, ++of_bank[*word % kBanks]);
    waves_ += static_cast<float>(most);
    cost_.shared_least += 1;
  }
  cost_.shared_waves += waves_;
  use(Unit::memory_pipe, waves_);
}

void BlockClock::touch_global(const uint64_t* address, Mask lanes, uint32_t bytes, bool store) {
  uint64_t sectors[kLanes * 2];
  uint32_t count = 0;
  each_lane(lanes, [&](int l) {
    sectors[count++] = address[l] / kSector;
    sectors[count++] = (address[l] + bytes - 1) / kSector;
  });
  std::sort(sectors, sectors + count);
  const auto found = static_cast<uint32_t>(std::unique(sectors, sectors + count) - sectors);
  touched_ = Class::global, first_touch_ = false;
  waves_ = static_cast<float>((found + 3) / 4);  // lines of 128 bytes
  for (uint32_t i = 0; i < found; ++i) {
    const bool first = seen_.insert(sectors[i]).second;
    first_touch_ |= first && !store;
    cost_.first_sectors += first;
    if (first || store) use(Unit::second_level, kSector / kBytesOfL2);
  }
  cost_.sectors += found;
  use(Unit::memory_pipe, waves_);
}

// The interval takes as long as its slowest warp, stretched to what the busiest unit needs.
void BlockClock::end_interval(bool barrier) {
  Moment last = interval_;
  for (WarpClock& w : warps_) last.join(w.latest);
  const double full = *std::max_element(used_.begin(), used_.end());
  const double waited = double{last.time} - interval_.time;
  for (int p = 0; p < kParts; ++p) {
    const auto i = static_cast<size_t>(p);
    cost_.alone.parts[i] += last.parts[i] - interval_.parts[i];
  }
  cost_.alone.time += static_cast<float>(waited);
  if (full > waited) cost_.alone.add(Part::unit, static_cast<float>(full - waited));
  cost_.full += full;
  for (size_t u = 0; u < kUnits; ++u) cost_.units[u] += used_[u];
  used_ = {};
  if (!barrier) return;
  ++cost_.barriers;
  last.add(Part::control, Latency::barrier);
  cost_.alone.add(Part::control, Latency::barrier);
  interval_ = last;
  for (WarpClock& w : warps_) w.begin = w.latest = last, w.slots = 0;
}

}  // namespace emulator
