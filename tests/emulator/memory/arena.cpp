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
constexpr size_t kPage = size_t{1} << 16;             // of every system that we know, or a multiple
constexpr size_t kReserved = size_t{1} << 38;         // address space; memory only where written
constexpr size_t kReturnToSystem = size_t{1} << 20;

// Room is handed out in powers of two and used again: the arena grows to the most that lived.
struct Arena {
  std::mutex mutex;
  std::byte* start = nullptr;
  size_t used = 0, open = 0;  // bytes handed out; bytes, whole pages, whose lock is switched
  int accesses = 0;           // HostAccess objects alive
  std::map<uint64_t, Allocation> known;
  MemoryUse use;
  std::vector<std::byte*> free[64];  // by the logarithm of their size

  Arena() {
    void* reserved =
        mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) throw std::bad_alloc();
    start = static_cast<std::byte*>(reserved);
    explain_faults_in(start, kReserved);
  }
  void protect(int how) {
    if (open > 0) mprotect(start, open, how);
  }
  std::byte* take(size_t room) {
    auto& list = free[std::countr_zero(room)];
    if (!list.empty()) {
      std::byte* reused = list.back();
      list.pop_back();
      return reused;
    }
    if (used + room > kReserved) throw std::bad_alloc();
    std::byte* fresh = start + used;
    used += room;
    if (used > open) {
      open = (used + kPage - 1) / kPage * kPage;
      protect(PROT_READ | PROT_WRITE);  // whoever takes holds a HostAccess
    }
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

HostAccess::HostAccess() {
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  if (a.accesses++ == 0) a.protect(PROT_READ | PROT_WRITE);
}

HostAccess::~HostAccess() {
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  if (--a.accesses == 0) a.protect(PROT_NONE);
}

void* allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  const HostAccess access;
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  std::byte* base = a.take(room_for(bytes));
  static_assert(kGap % kAlignment == 0, "powers of two from the gap on keep the alignment");
  std::memset(base, 0xff, bytes);  // NaN of every floating-point type
  const auto address = reinterpret_cast<uint64_t>(base);
  a.known[address] = {address, bytes, std::make_shared<uint8_t[]>(bytes)};
  a.use.live += bytes;
  a.use.peak = std::max(a.use.peak, a.use.live);
  return base;
}

void release(void* base) {
  if (base == nullptr) return;
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  const auto it = a.known.find(reinterpret_cast<uint64_t>(base));
  if (it == a.known.end()) return;
  a.use.live -= it->second.bytes;
  const size_t room = room_for(it->second.bytes);
  if (room >= kReturnToSystem) madvise(base, room, MADV_DONTNEED);
  a.known.erase(it);
  a.free[std::countr_zero(room)].push_back(static_cast<std::byte*>(base));
}

void mark_written(const void* inside) {
  if (inside == nullptr) return;
  Arena& a = arena();
  const std::lock_guard lock(a.mutex);
  const Allocation* k = a.around(reinterpret_cast<uint64_t>(inside));
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
