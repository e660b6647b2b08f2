// CPU entry points of the svd room, one copy per instruction set (common/simd/isa.h).
//
// Matrices are contiguous, row by row or (by_columns) column by column, `count` of them one after
// another; min(m, n) <= 128 (eigh: n <= 128), the long side is free. Results are row-major. Each
// call is serial. A matrix with NaN or Inf gives NaN in all of its own results and changes no bit
// of the others'; no result depends on count or position.
#pragma once

#include <cstdint>

#include "common/simd/isa.h"

namespace kdops::svd {

// A = U diag(S) Vh with r = min(m, n): u (m x r) or null, s (r) descending, vh (r x n).
// canonical: max(v) + min(v) > 0 for each row v of vh. fast: from the Gram matrix alone.
KDOPS_PER_ISA(template <class T> void svd_full(const T* a, T* u, T* s, T* vh, int64_t count, int m,
                                               int n, bool by_columns, bool canonical, bool fast);)

KDOPS_PER_ISA(template <class T>
              void svdvals(const T* a, T* s, int64_t count, int m, int n, bool by_columns);)

// Symmetric a (the lower triangle is read): eigenvalues ascending, eigenvectors as columns.
KDOPS_PER_ISA(template <class T>
              void eigh(const T* a, T* eigenvalues, T* eigenvectors, int64_t count, int n);)

}  // namespace kdops::svd
