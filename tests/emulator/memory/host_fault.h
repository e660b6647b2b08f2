// Says what happened when host code touched locked device memory, before the process ends.
#pragma once

#include <cstddef>

namespace emulator {

void explain_faults_in(const std::byte* start, size_t bytes);

}  // namespace emulator
