// A CUDA block on one CPU thread: every CUDA thread is a fibre that runs until it meets a barrier
// or a warp operation, then the next one runs, in forward, reverse or seeded random order. What a
// kernel may not rely on (who runs first, what shared memory holds) thereby changes between
// schedules, so a missing barrier changes results. Reported as errors, with the source line:
// divergent or incomplete barriers, deadlock, a warp operation whose mask names an exited lane or
// lacks the caller, a shuffle that reads a lane outside the mask, writes past a shared array,
// stack overflow. Blocks run one after another; spinning on another block is not supported.
// cusim.h puts CUDA's names on top; launch() is at the end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

#include "cusim_fibre.h"

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace cusim {

using Where = std::source_location;
enum class Schedule { forward, reverse, random };
enum class Kind : uint8_t { sync, shuffle, vote, block };

struct Thread {
  Fibre fibre;
  Kind kind;
  unsigned mask;
  int source;      // of a shuffle: lane of the warp
  uint64_t value;  // published to the others; after the operation: what this thread receives
  Where where;
};
struct Warp {
  uint32_t ready, waiting, exited;  // lanes; `waiting` at a warp operation
};
struct SharedArray {
  std::unique_ptr<std::byte[]> memory;
  size_t bytes;
};

inline constexpr size_t kCanary = 64;  // bytes on both sides of a shared array
inline constexpr size_t kStaticLimit = 48 << 10, kDynamicLimit = 227 << 10;

struct Machine {
  Schedule schedule = Schedule::forward;
  uint64_t random_state = 1;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<SharedArray> shared;  // [0] is the dynamic one
  uint64_t block_serial = 0;        // tells a static shared array that a new block has started
  unsigned current = 0, at_barrier = 0, exited = 0;
  std::function<void()> kernel;
  std::string error;
};
inline Machine machine;

inline uint64_t next_random() {  // xorshift
  uint64_t& s = machine.random_state;
  s ^= s << 13, s ^= s >> 7, s ^= s << 17;
  return s;
}

inline std::string describe(unsigned thread) {
  const Thread& t = machine.threads[thread];
  const std::string path = t.where.file_name();
  return "thread " + std::to_string(thread) + " at " + path.substr(path.find_last_of('/') + 1) +
         ":" + std::to_string(t.where.line());
}

// From inside a fibre: the block is given up, launch() throws.
inline void fail(const std::string& message) {
  machine.error = message;
  for (;;) leave_fibre(machine.threads[machine.current].fibre);
}

// ---- warp operations -------------------------------------------------------------------------

// All lanes of the mask have arrived: hand every one its result and let them run.
inline void finish_warp_operation(unsigned base, unsigned mask, Kind kind) {
  Warp& warp = machine.warps[base / 32];
  uint64_t published[32] = {}, ballot = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    published[lane] = machine.threads[base + lane].value;
    ballot |= uint64_t(published[lane] & 1) << lane;
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    Thread& thread = machine.threads[base + lane];
    if (kind == Kind::shuffle) thread.value = published[thread.source];
    if (kind == Kind::vote) thread.value = ballot;
  }
  warp.waiting &= ~mask;
  warp.ready |= mask;
}

inline uint64_t warp_operation(Kind kind, unsigned mask, uint64_t value, int source, Where where) {
  const unsigned me = machine.current, lane = me % 32, base = me - lane;
  Warp& warp = machine.warps[base / 32];
  Thread& thread = machine.threads[me];
  thread.kind = kind, thread.mask = mask, thread.value = value, thread.source = source;
  thread.where = where;
  if (!(mask >> lane & 1)) fail("warp operation without its own lane in the mask: " + describe(me));
  if (mask & warp.exited) fail("warp operation whose mask names an exited lane: " + describe(me));
  if (kind == Kind::shuffle && !(mask >> source & 1))
    fail("shuffle reads lane " + std::to_string(source) + ", not in the mask: " + describe(me));
  warp.ready &= ~(1u << lane);
  warp.waiting |= 1u << lane;
  bool complete = (warp.waiting & mask) == mask;
  for (unsigned other = 0; complete && other < 32; ++other) {
    if (!(mask >> other & 1)) continue;
    const Thread& t = machine.threads[base + other];
    complete = t.mask == mask;  // another mask: that lane will come here later
    if (complete && t.kind != kind)
      fail("lanes of one mask meet in different warp operations: " + describe(me) + ", " +
           describe(base + other));
  }
  if (complete) finish_warp_operation(base, mask, kind);
  if (!(warp.ready >> lane & 1) || machine.schedule == Schedule::random) leave_fibre(thread.fibre);
  return thread.value;
}

// ---- block barrier ---------------------------------------------------------------------------

enum class Vote { any, all, count };

inline void finish_barrier() {
  Machine& m = machine;
  uint64_t count = 0;
  if (m.exited)
    fail("divergent __syncthreads: " + std::to_string(m.exited) + " threads have exited, " +
         describe(m.current));
  for (unsigned t = 0; t < m.threads.size(); ++t) {
    count += m.threads[t].value;
    if (m.threads[t].where.line() != m.threads[0].where.line())
      fail("divergent __syncthreads: " + describe(0) + ", " + describe(t));
  }
  for (unsigned t = 0; t < m.threads.size(); ++t) {
    m.threads[t].value = count;
    m.warps[t / 32].ready |= 1u << (t % 32);
  }
  m.at_barrier = 0;
}

inline int barrier(bool value, Vote vote, Where where) {
  Thread& thread = machine.threads[machine.current];
  thread.kind = Kind::block, thread.value = value, thread.where = where;
  machine.warps[machine.current / 32].ready &= ~(1u << (machine.current % 32));
  if (++machine.at_barrier + machine.exited == machine.threads.size()) finish_barrier();
  leave_fibre(thread.fibre);
  const int count = static_cast<int>(thread.value);
  if (vote == Vote::any) return count > 0;
  if (vote == Vote::all) return count == static_cast<int>(machine.threads.size());
  return count;
}

// ---- shared memory ---------------------------------------------------------------------------

inline std::byte* allocate_shared(size_t bytes) {
  auto memory = std::make_unique<std::byte[]>(bytes + 2 * kCanary);
  std::memset(memory.get(), 0xff, bytes + 2 * kCanary);  // NaN for every number type
  machine.shared.push_back({std::move(memory), bytes});
  size_t total = 0;
  for (size_t i = 1; i < machine.shared.size(); ++i) total += machine.shared[i].bytes;
  if (total > kStaticLimit) fail("more than 48 KiB of static shared memory");
  std::byte* start = machine.shared.back().memory.get();
  poison(start, kCanary), poison(start + kCanary + bytes, kCanary);
  return start + kCanary;
}

inline void free_shared() {
  for (SharedArray& array : machine.shared) {
    std::byte* start = array.memory.get();
    unpoison(start, array.bytes + 2 * kCanary);
    for (size_t i = 0; i < kCanary; ++i)
      if (start[i] != std::byte(0xff) || start[kCanary + array.bytes + i] != std::byte(0xff))
        machine.error = "write outside a shared array of " + std::to_string(array.bytes) + " bytes";
  }
  machine.shared.clear();
}

// ---- one block -------------------------------------------------------------------------------

inline void fibre_main() {
  machine.kernel();
  const unsigned me = machine.current;
  Warp& warp = machine.warps[me / 32];
  warp.ready &= ~(1u << (me % 32));
  warp.exited |= 1u << (me % 32);
  for (unsigned lane = 0; lane < 32; ++lane)
    if ((warp.waiting >> lane & 1) && (machine.threads[me - me % 32 + lane].mask >> (me % 32) & 1))
      fail("warp operation whose mask names an exited lane: " + describe(me - me % 32 + lane));
  if (++machine.exited + machine.at_barrier == machine.threads.size() && machine.at_barrier)
    fail("divergent __syncthreads: thread " + std::to_string(me) + " has exited");
  end_fibre(machine.threads[me].fibre);
}

// Names one waiting thread for every place where threads wait.
inline std::string deadlock_message() {
  std::string message = "deadlock: threads wait for others that never come:";
  std::vector<unsigned> lines;
  for (unsigned t = 0; t < machine.threads.size(); ++t) {
    const unsigned line = machine.threads[t].where.line();
    if (machine.warps[t / 32].exited >> (t % 32) & 1) continue;
    if (std::find(lines.begin(), lines.end(), line) != lines.end()) continue;
    lines.push_back(line);
    message += " " + describe(t);
  }
  return message;
}

// The next thread that can run, or -1.
inline int choose_thread() {
  const auto& warps = machine.warps;
  const size_t first = machine.schedule == Schedule::random ? next_random() % warps.size() : 0;
  for (size_t i = 0; i < warps.size(); ++i) {
    const bool reverse = machine.schedule == Schedule::reverse;
    const size_t w = reverse ? warps.size() - 1 - i : (first + i) % warps.size();
    uint32_t ready = warps[w].ready;
    if (!ready) continue;
    if (reverse) return static_cast<int>(w) * 32 + 31 - __builtin_clz(ready);
    if (machine.schedule == Schedule::random)
      for (int skip = next_random() % __builtin_popcount(ready); skip > 0; --skip)
        ready &= ready - 1;
    return static_cast<int>(w) * 32 + __builtin_ctz(ready);
  }
  return -1;
}

inline void run_block(unsigned block, size_t dynamic_bytes) {
  Machine& m = machine;
  const unsigned count = blockDim.x * blockDim.y * blockDim.z;
  blockIdx =
      dim3(block % gridDim.x, block / gridDim.x % gridDim.y, block / (gridDim.x * gridDim.y));
  ++m.block_serial, m.at_barrier = 0, m.exited = 0, m.error.clear();
  m.threads.resize(count);
  m.warps.assign((count + 31) / 32, Warp{~0u, 0, 0});
  if (count % 32) m.warps.back() = Warp{~0u >> (32 - count % 32), 0, ~0u << (count % 32)};
  allocate_shared(dynamic_bytes);
  for (Thread& thread : m.threads) begin_fibre(thread.fibre, fibre_main);
  while (m.exited < count && m.error.empty()) {
    const int next = choose_thread();
    if (next < 0) {
      m.error = deadlock_message();
      break;
    }
    m.current = static_cast<unsigned>(next);
    threadIdx = dim3(m.current % blockDim.x, m.current / blockDim.x % blockDim.y,
                     m.current / (blockDim.x * blockDim.y));
    enter_fibre(m.threads[m.current].fibre);
  }
  for (const Thread& thread : m.threads)
    if (overflowed(thread.fibre)) m.error = "stack overflow in a simulated thread";
  free_shared();
  if (!m.error.empty()) throw std::runtime_error("cusim: " + m.error);
}

// ---- the public side -------------------------------------------------------------------------

inline void set_schedule(Schedule schedule, uint64_t seed = 1) {
  machine.schedule = schedule;
  machine.random_state = seed * 0x9e3779b97f4a7c15 + 1;
}

// launch(grid, block, dynamic shared bytes, [&] { kernel<float>(arguments); });
inline void launch(dim3 grid, dim3 block, size_t dynamic_bytes, std::function<void()> kernel) {
  if (block.x * block.y * block.z > 1024 || block.x * block.y * block.z == 0)
    throw std::runtime_error("cusim: a block has 1 to 1024 threads");
  if (dynamic_bytes > kDynamicLimit)
    throw std::runtime_error("cusim: more than 227 KiB of dynamic shared memory");
  gridDim = grid, blockDim = block;
  machine.kernel = std::move(kernel);
  std::vector<unsigned> order(grid.x * grid.y * grid.z);
  for (unsigned i = 0; i < order.size(); ++i) {
    const unsigned last = static_cast<unsigned>(order.size()) - 1;
    order[i] = machine.schedule == Schedule::reverse ? last - i : i;
    if (machine.schedule == Schedule::random) std::swap(order[i], order[next_random() % (i + 1)]);
  }
  for (unsigned block_index : order) run_block(block_index, dynamic_bytes);
}

}  // namespace cusim
