// What the alignment accepts on every device, and its results. Callers: align_cpu.cpp,
// align_cuda.cu.
#pragma once

#include "common/check.h"
#include "common/dispatch.h"
#include "common/tensors.h"
#include "svd/align.h"

namespace kdops {

template <class T>
Vectors<T> vectors_of(const Tensor& x) {
  return {pointer<T>(x), x.stride(0), x.stride(1), x.stride(2)};
}

inline AlignSizes align_sizes(const char* op, const Tensor& student, const Tensor& teacher) {
  check_dim(op, "student", student, 3);
  check_dim(op, "teacher", teacher, 3);
  check_like(op, "teacher", teacher, student);
  check_size(op, "teacher", teacher, 0, student.size(0));
  check_size(op, "teacher", teacher, 1, student.size(1));
  STD_TORCH_CHECK(student.size(2) > 0, op, ": expected at least one student vector, got ",
                  shape_of(student));
  return {student.size(0), student.size(1), student.size(2), teacher.size(2)};
}

inline AlignSizes align_sizes(const char* op, const Tensor& grad, const Tensor& choice,
                              int64_t candidates) {
  check_dim(op, "grad", grad, 3);
  check_dim(op, "choice", choice, 2);
  check_size(op, "choice", choice, 0, grad.size(0));
  check_size(op, "choice", choice, 1, grad.size(2));
  STD_TORCH_CHECK(choice.scalar_type() == ScalarType::Long, op, ": expected choice of int64");
  STD_TORCH_CHECK(choice.device() == grad.device(), op, ": choice is on another device than grad");
  STD_TORCH_CHECK(candidates > 0, op, ": expected candidates >= 1, got ", candidates);
  return {grad.size(0), grad.size(1), candidates, grad.size(2)};
}

}  // namespace kdops
