#include "machine/block.h"

#include <algorithm>
#include <cstring>

namespace emulator {
namespace {

constexpr size_t kCacheLine = 64;

uint32_t special_value(const Launch& launch, uint64_t block, uint32_t thread,
                       const SpecialRegister& r) {
  const auto along = [&](uint64_t flat, const uint32_t* sizes) {
    if (r.axis == 0) return static_cast<uint32_t>(flat % sizes[0]);
    if (r.axis == 1) return static_cast<uint32_t>(flat / sizes[0] % sizes[1]);
    return static_cast<uint32_t>(flat / sizes[0] / sizes[1]);
  };
  switch (r.what) {
    case Special::thread:
      return along(thread, launch.threads);
    case Special::threads:
      return launch.threads[r.axis];
    case Special::block:
      return along(block, launch.blocks);
    case Special::blocks:
      return launch.blocks[r.axis];
    case Special::lane:
      return thread % kLanes;
    case Special::warp:
      return thread / kLanes;
  }
  return 0;
}

void set_constants(Warp& w, const Program& program) {
  for (const Constant& c : program.constants) {
    if (c.wide)
      std::fill_n(lanes_of<uint64_t>(w, c.slot), kLanes, c.value);
    else
      std::fill_n(lanes_of<uint32_t>(w, c.slot), kLanes, static_cast<uint32_t>(c.value));
  }
}

}  // namespace

Block::Block(const Launch& launch) : launch_(launch) {
  const Program& program = *launch.program;
  const size_t count = (launch.thread_count() + kLanes - 1) / kLanes;
  // a line more a warp, or the same register of all warps would share the cache's few places
  const size_t stride = (program.register_bytes + kCacheLine - 1) / kCacheLine * kCacheLine + 64;
  registers_.resize(stride * count + kCacheLine);
  const auto address = reinterpret_cast<uintptr_t>(registers_.data());
  uint8_t* first = registers_.data() + (kCacheLine - address % kCacheLine) % kCacheLine;
  warps_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    warps_[i].block = this;
    warps_[i].number = static_cast<uint16_t>(i);
    warps_[i].registers = first + stride * i;
  }
  if (launch.timed)
    clock_ = std::make_unique<BlockClock>(count, program.register_bytes, launch.cold);
}

void Block::start_warps() {
  const Program& program = *launch_.program;
  for (Warp& w : warps_) {
    const uint32_t lanes = launch_.thread_count() - w.number * kLanes;
    w.valid = w.live = lanes >= kLanes ? kAllLanes : (Mask{1} << lanes) - 1;
    w.groups.assign(1, {0, w.live, false});
    w.interval = 1, w.at_barrier = w.done = false;
    w.local.assign(size_t{program.local_bytes} * kLanes, 0xff);
    w.local_written.assign(w.local.size(), 0);
    std::memset(w.registers, 0xff, program.register_bytes);
    set_constants(w, program);
    set_specials(w);
  }
}

void Block::set_specials(Warp& w) {
  for (const SpecialRegister& r : launch_.program->specials) {
    uint32_t* to = lanes_of<uint32_t>(w, r.slot);
    for (uint32_t l = 0; l < kLanes; ++l)
      to[l] = special_value(launch_, index_, w.number * uint32_t{kLanes} + l, r);
  }
}

void Block::run(uint64_t index) {
  index_ = index;
  limit_ = instructions + launch_.budget;
  const uint32_t static_shared = (launch_.program->static_shared + 15) / 16 * 16;
  shared_.reset(static_shared + launch_.dynamic_shared);
  start_warps();
  if (clock_ != nullptr) clock_->start();
  try {
    run_warps();
    if (clock_ != nullptr) clock_->end_interval(false);
  } catch (const Trap& trap) {
    findings.add(trap.what(), at_, [&] { return "block " + std::to_string(index_); });
  }
}

void Block::run_warps() {
  while (true) {
    size_t waiting = 0, done = 0;
    for (Warp& w : warps_) {
      if (!w.done && !w.at_barrier) run_warp(w);
      waiting += w.at_barrier, done += w.done;
    }
    if (done == warps_.size()) return;
    if (done > 0) object(warps_[0], 0, "block barrier after some warps have left");
    open_barrier();
  }
}

// Every warp that has not left is here.
void Block::open_barrier() {
  bool any = false, all = true;
  uint32_t count = 0;
  for (const Warp& w : warps_) {
    if (!w.at_barrier) continue;
    any |= w.votes != 0, all &= w.votes == w.live;
    count += static_cast<uint32_t>(std::popcount(w.votes));
  }
  for (Warp& w : warps_) {
    if (!w.at_barrier) continue;
    w.at_barrier = false;
    const Vote how = w.barrier->vote;
    if (how == Vote::none) continue;
    const uint32_t result = how == Vote::any ? any : how == Vote::all ? all : count;
    uint32_t* to = lanes_of<uint32_t>(w, w.barrier->to);
    each_lane(w.live, [&](int l) { to[l] = result; });
  }
  shared_.next_interval();
  if (clock_ != nullptr) clock_->end_interval(true);
}

const Allocation& Block::allocation_of(uint64_t address, uint64_t bytes) {
  for (const Allocation& a : recent_)
    if (a.holds(address, bytes)) return a;
  Allocation& a = recent_[next_recent_];
  next_recent_ = (next_recent_ + 1) % 4;
  a = find_allocation(address, bytes);
  return a;
}

void Block::object(const Warp& w, Mask lanes, const char* what, const std::string& detail) {
  findings.add(what, at_, [&] {
    std::string text = "block " + std::to_string(index_) + " warp " + std::to_string(w.number);
    if (lanes != 0) text += " lane " + std::to_string(first_lane(lanes));
    return detail.empty() ? text : text + ", " + detail;
  });
}

}  // namespace emulator
