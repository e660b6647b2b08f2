// What the glue of the svd room shares on every device: a batch of matrices and its result tensors.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <vector>

#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/tensors.h"
#include "svd/limits.h"

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

  void check_small_side(const char* op, int64_t largest = kLargestSmallSide) const {
    STD_TORCH_CHECK(small_side() <= largest, op, ": expected min(m, n) <= ", largest,
                    ", got A of shape ", shape_of(A));
  }
  void check_k(const char* op, int64_t k, int64_t largest = kLargestK) const {
    const int64_t most = std::min(largest, small_side());
    STD_TORCH_CHECK(k >= 1 && k <= most, op, ": expected 1 <= k <= min(m, n, ", largest,
                    ") = ", most, ", got k = ", k);
  }
  // What an earlier call returned for these matrices: [*, sizes...] of A's dtype and device.
  void check_part(const char* op, const char* name, const Tensor& part,
                  std::initializer_list<int64_t> sizes) const {
    const int64_t lead = A.dim() - 2;
    check_like(op, name, part, A);
    check_dim(op, name, part, lead + static_cast<int64_t>(sizes.size()));
    for (int64_t i = 0; i < lead; ++i) check_size(op, name, part, i, A.size(i));
    for (int64_t i = lead; i < part.dim(); ++i)
      check_size(op, name, part, i, sizes.begin()[i - lead]);
  }
  // k of the triples of svd_topk; U has no columns where it was not asked for.
  int64_t check_triples(const char* op, const Tensor& U, const Tensor& S, const Tensor& Vh,
                        int64_t largest = kLargestK) const {
    check_dim(op, "S", S, A.dim() - 1);
    const int64_t k = S.size(-1);
    check_k(op, k, largest);
    check_part(op, "S", S, {k});
    check_part(op, "Vh", Vh, {k, n});
    const bool without_u = U.dim() > 0 && U.size(-1) == 0;
    check_part(op, "U", U, {m, without_u ? 0 : k});
    return k;
  }

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
  check_sizes(op, name, *grad, output, output.sizes());
  return contiguous_of(*grad);
}

}  // namespace kdops::svd
