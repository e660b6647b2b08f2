// The shape rules of svd_rbf_loss, shared by the CPU and the CUDA glue.
#pragma once

#include <algorithm>
#include <cmath>

#include "common/torch/check.h"

namespace kdops::rbf {

// Fronts (B, D_front, k), backs (B, D_back, k), one dtype and device.
inline void check_levels(const Tensor& student_front, const Tensor& student_back,
                         const Tensor& teacher_front, const Tensor& teacher_back) {
  const char* op = "svd_rbf_loss";
  check_dim(op, "student_front", student_front, 3);
  check_dim(op, "student_back", student_back, 3);
  const auto check = [&](const char* name, const Tensor& x, int64_t rows) {
    check_sizes(op, name, x, student_front, {student_front.size(0), rows, student_front.size(2)});
  };
  check("student_back", student_back, student_back.size(1));
  check("teacher_front", teacher_front, student_front.size(1));
  check("teacher_back", teacher_back, student_back.size(1));
}

// What the sum is multiplied by: variant 0 "mean", 1 "sum", 2 "paper". The op takes it from its own
// sizes, since a number would be baked into a traced graph.
inline double svd_rbf_scale(const Tensor& student_front, int64_t variant) {
  STD_TORCH_CHECK(variant >= 0 && variant <= 2, "svd_rbf_loss: expected variant 0, 1 or 2, got ",
                  variant);
  if (variant == 0) return 1 / static_cast<double>(std::max<int64_t>(student_front.size(0), 1));
  return variant == 1 ? 1.0 : 0.5 * std::sqrt(static_cast<double>(student_front.size(2)));
}

}  // namespace kdops::rbf
