// Shapes of a top-k problem, with the places of what the forward saves (shared/saved.h).
//
// A lies row by row or column by column (feature maps seen as positions x channels do): what the
// kernels ask is only whether its long index runs over rows of memory of p numbers each, or lies
// contiguously, `length` numbers for each of the p small-side indices. The long vectors follow
// another rule: U is m x k, Vh k x n.
#pragma once

#include <algorithm>

#include "svd/shared/saved.h"
#include "svd/topk/cpu/tridiagonal.h"

namespace kdops::svd::KDOPS_ISA {

struct TopkShape : TopkSaved {
  int64_t m, n;
  bool tall;       // the long vectors are U's, not Vh's
  bool long_rows;  // A in memory: length rows of p numbers, not p rows of length numbers
  int64_t length;  // the long side

  TopkShape(int64_t rows, int64_t columns, int top, bool column_major)
      : TopkSaved{static_cast<int>(std::min(rows, columns)), top},
        m(rows),
        n(columns),
        tall(rows >= columns),
        long_rows(tall != column_major),
        length(std::max(rows, columns)) {}

  // The Gram route's data would not fit saved; nor would it be faster than all vectors at once.
  bool always_dense() const { return 2 * k >= p; }
  int vectors_at() const {
    return together() ? reflectors_at() + packed_size(p) : leading_vectors_at();
  }
};

}  // namespace kdops::svd::KDOPS_ISA
