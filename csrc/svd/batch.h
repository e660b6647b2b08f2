// What the CPU glue of the svd room shares: a contiguous batch of matrices and its result tensors.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <vector>

#include "common/check.h"
#include "common/dispatch.h"

namespace kdops {

// A [*, m, n] made contiguous, seen as `count` matrices.
struct MatrixBatch {
  Tensor A;
  int64_t count, m, n;

  MatrixBatch(const char* op, const Tensor& input) : A(torch::stable::contiguous(input)) {
    STD_TORCH_CHECK(A.dim() >= 2, op, ": expected A of shape [..., m, n], got ", shape_of(A));
    m = A.size(-2);
    n = A.size(-1);
    STD_TORCH_CHECK(m > 0 && n > 0, op, ": expected m, n >= 1, got ", shape_of(A));
    count = A.numel() / (m * n);
  }

  int64_t small_side() const { return std::min(m, n); }

  // An uninitialised tensor [*, sizes...] of A's dtype and device.
  Tensor result(std::initializer_list<int64_t> sizes) const {
    std::vector<int64_t> shape;
    for (int64_t i = 0; i < A.dim() - 2; ++i) shape.push_back(A.size(i));
    shape.insert(shape.end(), sizes);
    return torch::stable::new_empty(A, shape);
  }
};

// A cotangent as a contiguous tensor of the shape of its output, or nothing.
inline std::optional<Tensor> cotangent(const char* op, const char* name,
                                       const std::optional<Tensor>& grad, const Tensor& output) {
  if (!grad) return std::nullopt;
  check_like(op, name, *grad, output);
  check_dim(op, name, *grad, output.dim());
  for (int64_t i = 0; i < output.dim(); ++i) check_size(op, name, *grad, i, output.size(i));
  return torch::stable::contiguous(*grad);
}

// Where a tensor's data lie from an offset on; null for no tensor and for one without entries.
template <class T>
const T* pointer_at(const std::optional<Tensor>& tensor, int64_t offset) {
  return tensor && tensor->numel() ? pointer<T>(*tensor) + offset : nullptr;
}

}  // namespace kdops
