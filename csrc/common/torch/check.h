// Argument checks of the native layer. The Python layer has already raised ValueError or TypeError
// with the user's names; these guard direct calls of torch.ops.kdops.* and name op and argument.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <sstream>
#include <string>

namespace kdops {

using torch::stable::Tensor;

inline std::string shape_of(const Tensor& tensor) {
  std::ostringstream text;
  text << "[";
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << "]";
  return text.str();
}

inline void check_dim(const char* op, const char* name, const Tensor& tensor, int64_t dim) {
  STD_TORCH_CHECK(tensor.dim() == dim, op, ": expected ", name, " with ", dim,
                  " dimensions, got shape ", shape_of(tensor));
}

inline void check_size(const char* op, const char* name, const Tensor& tensor, int64_t axis,
                       int64_t expected) {
  STD_TORCH_CHECK(tensor.size(axis) == expected, op, ": expected ", name, " of size ", expected,
                  " in dimension ", axis, ", got shape ", shape_of(tensor));
}

// Same dtype and device as the first argument of the op.
inline void check_like(const char* op, const char* name, const Tensor& tensor,
                       const Tensor& first) {
  STD_TORCH_CHECK(tensor.scalar_type() == first.scalar_type(), op, ": ", name,
                  " has another dtype than the first argument");
  STD_TORCH_CHECK(tensor.device() == first.device(), op, ": ", name,
                  " is on another device than the first argument");
}

// All of it: like `first`, and of these sizes; kAnySize where anything goes.
inline constexpr int64_t kAnySize = -1;
inline void check_sizes(const char* op, const char* name, const Tensor& tensor, const Tensor& first,
                        torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  check_dim(op, name, tensor, static_cast<int64_t>(sizes.size()));
  check_like(op, name, tensor, first);
  int64_t axis = 0;
  for (const int64_t size : sizes) {
    if (size != kAnySize) check_size(op, name, tensor, axis, size);
    ++axis;
  }
}

// student (N, D) and teacher (N, D').
inline void check_row_sets(const char* op, const Tensor& student, const Tensor& teacher) {
  check_dim(op, "student", student, 2);
  check_sizes(op, "teacher", teacher, student, {student.size(0), kAnySize});
}

}  // namespace kdops
