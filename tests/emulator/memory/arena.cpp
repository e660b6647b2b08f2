#include "memory/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "memory/host_fault.h"

namespace emulator {
namespace {

constexpr size_t kAlignment = 256, kGap = 256;
constexpr size_t kReserved = size_t{1} << 38;  // address space; memory only where written
constexpr size_t kReturnToSystem = size_t{1} << 20;

std::byte* reserve(int protection) {
  constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* reserved = mmap(nullptr, kReserved, protection, kPrivate, -1, 0);
  if (reserved == MAP_FAILED) throw std::bad_alloc();
  return static_cast<std::byte*>(reserved);
}

// Room is handed out in powers of two and used again: the arena grows to the most that lived.
struct Arena {
  std::mutex mutex;
  std::byte* const device = reserve(PROT_NONE);
  std::byte* const host = reserve(PROT_READ | PROT_WRITE);
  size_t used = 0;
  std::map<uint64_t, Allocation> known;
  MemoryUse use;
  std::vector<std::byte*> free[64];  // by the logarithm of their size

  Arena() { explain_faults_in(device, kReserved); }
  std::byte* take(size_t room) {
    auto& list = free[std::countr_zero(room)];
    if (!list.empty()) {
      std::byte* reused = list.back();
      list.pop_back();
      return reused;
    }
    if (used + room > kReserved) throw std::bad_alloc();
    std::byte* fresh = device + used;
    used += room;
    return fresh;
  }
  const Allocation* around(uint64_t address) {
    const auto it = known.upper_bound(address);
    return it == known.begin() ? nullptr : &std::prev(it)->second;
  }
};

Arena& arena() {
  static Arena* one = new Arena;  // never destroyed: tensors may die after everything else
  return *one;
}

size_t room_for(size_t bytes) { return std::bit_ceil(bytes + kGap); }

}  // namespace

void* contents(const void* device) {
  if (device == nullptr) return nullptr;
  const Arena& a = arena();
  return a.host + (static_cast<const std::byte*>(device) - a.device);
}

void* allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  static_assert(kGap % kAlignment == 0, "powers of two from the gap on keep the alignment");
  std::byte* base = a.take(room_for(bytes));
  std::memset(contents(base), 0xff, bytes);  // NaN of every floating-point type
  const auto address = reinterpret_cast<uint64_t>(base);
  a.known[address] = {address, bytes, std::make_shared<uint8_t[]>(bytes)};
  a.use.live += bytes;
  a.use.peak = std::max(a.use.peak, a.use.live);
  return base;
}

void release(void* device) {
  if (device == nullptr) return;
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  const auto it = a.known.find(reinterpret_cast<uint64_t>(device));
  if (it == a.known.end()) return;
  a.use.live -= it->second.bytes;
  const size_t room = room_for(it->second.bytes);
  if (room >= kReturnToSystem) madvise(contents(device), room, MADV_DONTNEED);
  a.known.erase(it);
  a.free[std::countr_zero(room)].push_back(static_cast<std::byte*>(device));
}

void mark_written(const void* device) {
  if (device == nullptr) return;
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  const Allocation* k = a.around(reinterpret_cast<uint64_t>(device));
  if (k != nullptr) std::memset(k->written.get(), 1, k->bytes);
}

Allocation find_allocation(uint64_t address, uint64_t bytes) {
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  const Allocation* k = a.around(address);
  return k != nullptr && k->holds(address, bytes) ? *k : Allocation();
}

MemoryUse memory_use() {
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  return a.use;
}

void reset_peak() {
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  a.use.peak = a.use.live;
}

}  // namespace emulator
