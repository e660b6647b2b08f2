// CPU entry points of svd, svdvals, eigh and svd_backward, one copy per instruction set
// (common/simd/isa.h).
//
// Matrices are contiguous, row by row or (by_columns) column by column, one after another;
// min(m, n) <= 128 (eigh: n <= 128), the long side is free. Results are row-major. Each call is
// serial. A matrix with NaN or Inf gives NaN in all of its own results and changes no bit of the
// others'; no result depends on count or position.
#pragma once

#include "common/simd/isa.h"

namespace kdops::svd {

// A = U diag(S) Vh with r = min(m, n): u (m x r), s (r) descending, vh (r x n).
template <class T>
struct SvdProblem {
  const T* a;
  T *u, *s, *vh;  // u null: not wanted; vh null too: singular values only
  int m, n;
  bool by_columns = false;
  bool canonical = false;  // max(v) + min(v) > 0 for each row v of vh
  bool fast = false;       // from the Gram matrix alone
};

// Symmetric a (n x n, the lower triangle is read): values ascending, vectors as columns.
template <class T>
struct EighProblem {
  const T* a;
  T *values, *vectors;
  int n;
};

// gA (m x n) from U (m x r), S (r), Vh (r x n), r = min(m, n), and their cotangents.
template <class T>
struct SvdBackwardProblem {
  const T *gU, *gS, *gVh;  // null: zero
  const T *U, *S, *Vh;
  T* gA;
  int64_t m, n;
  bool lorentz;  // the degenerate policy "lorentz", else "mask"
};

KDOPS_ENTRY(svd_full, SvdProblem)
KDOPS_ENTRY(eigh, EighProblem)
KDOPS_ENTRY(svd_backward, SvdBackwardProblem)

}  // namespace kdops::svd
