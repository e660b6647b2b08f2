// Where shared and local memory lie among the generic addresses; the rest is global memory.
#pragma once

#include <cstdint>

namespace emulator {

constexpr uint64_t kSharedWindow = 0x00f1000000000000, kLocalWindow = 0x00f2000000000000;
constexpr uint64_t kWindowBytes = uint64_t{1} << 32;

inline bool in_window(uint64_t address, uint64_t window) { return address - window < kWindowBytes; }

}  // namespace emulator
