// Device memory. A device address is one that the host cannot read: its pages are locked for ever, so
// that host code which follows a device pointer faults, as it does with a real device. What is
// stored lies at a fixed distance, where only the emulator looks; it knows every allocation and
// every byte that was written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "memory/bounds.h"

namespace emulator {

struct Allocation {
  uint64_t base = 0, bytes = 0;        // as it stands it holds nothing
  std::shared_ptr<uint8_t[]> written;  // one flag a byte
  bool holds(uint64_t address, uint64_t size) const { return inside(address - base, size, bytes); }
};

// NaN-filled, at a multiple of 256 bytes, with a gap of at least 256 bytes behind it.
void* allocate(size_t bytes);
void release(void* device);
// Where the emulator finds what a device address holds; null for null.
void* contents(const void* device);
// The allocation around `device` is written as a whole: an operator of torch did so.
void mark_written(const void* device);
// What is known of the allocation that holds [address, address + bytes); an empty one if none does.
Allocation find_allocation(uint64_t address, uint64_t bytes);

struct MemoryUse {
  size_t live = 0, peak = 0;  // bytes
};
MemoryUse memory_use();
void reset_peak();

}  // namespace emulator
