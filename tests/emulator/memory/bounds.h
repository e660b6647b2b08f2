// Whether `bytes` bytes at `at` lie inside of `size` bytes; also for an `at` that has wrapped around.
#pragma once

#include <cstdint>

namespace emulator {

inline bool inside(uint64_t at, uint64_t bytes, uint64_t size) {
  return bytes <= size && at <= size - bytes;
}

}  // namespace emulator
