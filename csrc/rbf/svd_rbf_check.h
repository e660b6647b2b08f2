// The shape rules of svd_rbf_loss, shared by the CPU and the CUDA glue.
#pragma once

#include "common/torch/check.h"

namespace kdops::rbf {

// Fronts (B, D_front, k), backs (B, D_back, k), one dtype and device.
inline void check_levels(const Tensor& student_front, const Tensor& student_back,
                         const Tensor& teacher_front, const Tensor& teacher_back) {
  const char* op = "svd_rbf_loss";
  check_dim(op, "student_front", student_front, 3);
  check_dim(op, "student_back", student_back, 3);
  const auto check = [&](const char* name, const Tensor& x, int64_t rows) {
    check_dim(op, name, x, 3);
    check_like(op, name, x, student_front);
    check_size(op, name, x, 0, student_front.size(0));
    check_size(op, name, x, 1, rows);
    check_size(op, name, x, 2, student_front.size(2));
  };
  check("student_back", student_back, student_back.size(1));
  check("teacher_front", teacher_front, student_front.size(1));
  check("teacher_back", teacher_back, student_back.size(1));
}

}  // namespace kdops::rbf
