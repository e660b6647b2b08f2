// Device memory: host memory of which the emulator knows every allocation and every byte that was
// written. The host may touch it only while a HostAccess lives: between launches and operators the
// pages are locked, so that host code that follows a device pointer faults as it would elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace emulator {

struct Allocation {
  uint64_t base = 1, bytes = 0;  // as it stands it holds nothing
  std::shared_ptr<uint8_t[]> written;  // one flag a byte
  bool holds(uint64_t address, uint64_t size) const {
    return address >= base && address + size <= base + bytes;
  }
};

// NaN-filled, at a multiple of 256 bytes, with a gap of at least 256 bytes behind it.
void* allocate(size_t bytes);
void release(void* base);
// The allocation around `inside` is written as a whole: an operator of torch did so.
void mark_written(const void* inside);
// What is known of the allocation that holds [address, address + bytes); an empty one if none does.
Allocation find_allocation(uint64_t address, uint64_t bytes);

struct MemoryUse {
  size_t live = 0, peak = 0;  // bytes
};
MemoryUse memory_use();
void reset_peak();

class HostAccess {
 public:
  HostAccess();
  ~HostAccess();
  HostAccess(const HostAccess&) = delete;
  HostAccess& operator=(const HostAccess&) = delete;
};

}  // namespace emulator
