// What the kernels of this room need: in one place for CUDA and Python, where
// kdops/ops/rbf/limits.py repeats it (tests/package/test_limits.py compares).
#pragma once

namespace kdops::rbf {

// Numbers of shared memory that svd_rbf_kernel keeps for every value of D_back.
inline constexpr int kNumbersPerBackValue = 4;

}  // namespace kdops::rbf
