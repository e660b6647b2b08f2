// What the alignment accepts on every device, and its results. Callers: align.cpp and
// align_cuda.cu.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "align/align.h"
#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/tensors.h"

namespace kdops::align {

inline AlignSizes align_sizes(const char* op, const Tensor& student, const Tensor& teacher) {
  check_dim(op, "student", student, 3);
  check_sizes(op, "teacher", teacher, student, {student.size(0), student.size(1), kAnySize});
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

// align_vectors on a device: run(problem) fills its results, where there is something to fill.
template <class Run>
std::tuple<Tensor, Tensor> align_vectors_by(const Tensor& student, const Tensor& teacher,
                                            const Run& run) {
  const char* op = "align_vectors";
  const AlignSizes sizes = align_sizes(op, student, teacher);
  Tensor aligned = empty_for(student, {sizes.batch, sizes.length, sizes.count});
  Tensor choice = empty_for(student, {sizes.batch, sizes.count}, ScalarType::Long);
  for_real_type(op, student, [&]<class T>(T) {
    if (choice.numel() == 0) return;
    run(Alignment<T>{sizes, strided<Vectors<T>>(student), strided<Vectors<T>>(teacher),
                     pointer<T>(aligned), pointer<int64_t>(choice)});
  });
  return {aligned, choice};
}

// align_vectors_backward likewise; the gradient lies vector by vector.
template <class Run>
Tensor align_vectors_backward_by(const Tensor& grad, const Tensor& choice, int64_t candidates,
                                 const Run& run) {
  const char* op = "align_vectors_backward";
  const AlignSizes sizes = align_sizes(op, grad, choice, candidates);
  const Tensor chosen = contiguous_of(choice);
  Tensor student = empty_for(grad, {sizes.batch, candidates, sizes.length});
  for_real_type(op, grad, [&]<class T>(T) {
    if (student.numel() == 0) return;
    run(AlignmentGradient<T>{sizes, strided<Vectors<T>>(grad), pointer<int64_t>(chosen),
                             pointer<T>(student)});
  });
  return torch::stable::transpose(student, -2, -1);
}

}  // namespace kdops::align
