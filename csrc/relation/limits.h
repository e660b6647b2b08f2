// What the kernels of this room take: in one place for CUDA and Python, where
// kdops/ops/relation/limits.py repeats it (tests/package/test_limits.py compares).
#pragma once

namespace kdops::relation {

// Rows of an RKD loss on CUDA: fewer than these.
inline constexpr int kTooManyRowsOnCuda = 1 << 15;

}  // namespace kdops::relation
