// What the CPU glue of the svd room shares: a contiguous batch of matrices and its result tensors.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <vector>

#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/tensors.h"

namespace kdops::svd {

// Whether the matrices lie column by column, one after another (and not row by row as well).
inline bool is_column_major(const Tensor& A) {
  return A.dim() >= 2 && !A.is_contiguous() && torch::stable::transpose(A, -2, -1).is_contiguous();
}

// A [*, m, n] seen as `count` matrices, contiguous: row by row, or column by column where the
// kernel takes both and A lies that way.
struct MatrixBatch {
  bool column_major;
  Tensor A;
  int64_t count, m, n;

  MatrixBatch(const char* op, const Tensor& input, bool any_order = false)
      : column_major(any_order && is_column_major(input)),
        A(column_major ? input : contiguous_of(input)) {
    STD_TORCH_CHECK(A.dim() >= 2, op, ": expected A of shape [..., m, n], got ", shape_of(A));
    m = A.size(-2);
    n = A.size(-1);
    STD_TORCH_CHECK(m > 0 && n > 0, op, ": expected m, n >= 1, got ", shape_of(A));
    count = A.numel() / (m * n);
  }

  int64_t small_side() const { return std::min(m, n); }

  // An uninitialised tensor [*, sizes...] of A's dtype and device.
  Tensor result(std::initializer_list<int64_t> sizes) const {
    const Sizes whole = A.sizes();
    std::vector<int64_t> shape;
    shape.reserve(whole.size());
    shape.assign(whole.begin(), whole.end() - 2);
    shape.insert(shape.end(), sizes);
    return empty_for(A, shape);
  }

  // The same as A, shape and order.
  Tensor like_A() const {
    return column_major ? torch::stable::transpose(result({n, m}), -2, -1) : result({m, n});
  }
};

// A cotangent as a contiguous tensor of the shape of its output, or nothing.
inline std::optional<Tensor> cotangent(const char* op, const char* name,
                                       const std::optional<Tensor>& grad, const Tensor& output) {
  if (!grad) return std::nullopt;
  check_like(op, name, *grad, output);
  check_dim(op, name, *grad, output.dim());
  for (int64_t i = 0; i < output.dim(); ++i) check_size(op, name, *grad, i, output.size(i));
  return contiguous_of(*grad);
}

// Where a tensor's data lie from an offset on; null for no tensor and for one without entries.
template <class T>
const T* pointer_at(const std::optional<Tensor>& tensor, int64_t offset) {
  return tensor && tensor->numel() ? pointer<T>(*tensor) + offset : nullptr;
}

}  // namespace kdops::svd
