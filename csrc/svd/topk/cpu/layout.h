// Shapes of a top-k problem and what the forward saves of each matrix for the backward.
//
// A lies row by row or column by column (feature maps seen as positions x channels do): what the
// kernels ask is only whether its long index runs over rows of memory of p numbers each, or lies
// contiguously, `length` numbers for each of the p small-side indices. The long vectors follow
// another rule: U is m x k, Vh k x n.
//
// saved, topk_saved_rows(p, k) p numbers a matrix: [route, f, ...]. After the Gram route: doubt (by
// how much the squares of the k values differ from T's eigenvalues, at most), d (p), e (p - 1),
// tau (p - 2), the packed reflectors (tridiagonal.h) and the small-side vectors (k x p) of f A. After
// the dense route: all p singular values of f A, then all p small-side vectors as rows. Where
// p > 128: [route, f, doubt, count, before, ...], `count` >= k leading values and vectors (rows) of
// f A, then d, e, tau and the reflectors as rows (gram) or the Gram matrix (krylov), p x p, of f A
// less the first `before` triples (large_forward.h).
#pragma once

#include "svd/topk/cpu/tridiagonal.h"
#include "svd/topk/route.h"

namespace kdops::svd::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

struct TopkShape {
  int64_t m, n;
  int k;
  bool tall;       // the long vectors are U's, not Vh's
  bool long_rows;  // A in memory: length rows of p numbers, not p rows of length numbers
  int p;           // the small side
  int64_t length;  // the long side

  TopkShape(int64_t rows, int64_t columns, int top, bool column_major)
      : m(rows),
        n(columns),
        k(top),
        tall(rows >= columns),
        long_rows(tall != column_major),
        p(static_cast<int>(tall ? columns : rows)),
        length(tall ? rows : columns) {}

  // The Gram route's data would not fit saved; nor would it be faster than all vectors at once.
  bool always_dense() const { return 2 * k >= p; }
  bool together() const { return p <= kLargestSmallSide; }
  int64_t saved_size() const { return p * topk_saved_rows(p, k); }

  static constexpr int kDoubt = 2, kHeader = 3;
  int diagonal_at() const { return kHeader; }
  int off_diagonal_at() const { return kHeader + p; }
  int tau_at() const { return off_diagonal_at() + p - 1; }
  int packed_at() const { return tau_at() + (p > 2 ? p - 2 : 0); }
  int vectors_at() const {
    return together() ? packed_at() + packed_size(p) : leading_values_at() + most_leading();
  }
  int dense_values_at() const { return kDoubt; }  // which this route does not need
  int dense_vectors_at() const { return kDoubt + p; }

  // p > 128: the most leading pairs that are kept, and where things lie.
  int most_leading() const { return 2 * k + 4; }
  int count_at() const { return kHeader; }
  int before_at() const { return kHeader + 1; }
  int leading_values_at() const { return kHeader + 2; }
  int64_t band_at() const { return vectors_at() + most_leading() * int64_t(p); }
  int64_t matrix_at() const { return band_at() + 3 * int64_t(p); }
};

}  // namespace kdops::svd::KDOPS_ISA
