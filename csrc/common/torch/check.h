// Argument checks of the native layer. The Python layer has already raised ValueError or TypeError
// with the user's names; these guard direct calls of torch.ops.kdops.* and name op and argument.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <string>

namespace kdops {

using torch::stable::Tensor;

std::string shape_of(const Tensor& tensor);

void check_dim(const char* op, const char* name, const Tensor& tensor, int64_t dim);
void check_size(const char* op, const char* name, const Tensor& tensor, int64_t axis,
                int64_t expected);

// Same dtype and device as the first argument of the op.
void check_like(const char* op, const char* name, const Tensor& tensor, const Tensor& first);

// All of it: like `first`, and of these sizes; kAnySize where anything goes.
inline constexpr int64_t kAnySize = -1;
void check_sizes(const char* op, const char* name, const Tensor& tensor, const Tensor& first,
                 torch::headeronly::IntHeaderOnlyArrayRef sizes);

// student (N, D) and teacher (N, D').
void check_row_sets(const char* op, const Tensor& student, const Tensor& teacher);

}  // namespace kdops
