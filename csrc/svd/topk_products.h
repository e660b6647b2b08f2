// The three products of a row-major matrix with few vectors that the top-k SVD is made of.
//
// row_dots: A v (rows against vectors), row_sums: Aᵀ w, outer_sums: Σ left_t right_tᵀ. Each one
// reads A or writes its result once; the few vectors stay in L1. Leading dimensions are in
// elements.
#pragma once

#include "common/transpose.h"

namespace kdops::KDOPS_ISA {

// Lane l of the result is lane index[l] of the pair (a, b), b's lanes counted from kLanes on.
template <int... kIndex, class T>
inline Pack<T> shuffle(Pack<T> a, Pack<T> b) {
#if defined(__clang__) || __GNUC__ >= 12
  return Pack<T>(__builtin_shufflevector(a.r, b.r, kIndex...));
#else
  using Bits = typename PackTraits<T>::Bits;
  return Pack<T>(__builtin_shuffle(a.r, b.r, Bits{kIndex...}));
#endif
}

inline constexpr int kMaxTop = 16;  // the largest k

// Lanes at distance kStep added: lanes with bit kStep clear hold sums of a, the others of b.
template <int kStep, class T, size_t... I>
inline Pack<T> add_neighbours(Pack<T> a, Pack<T> b, std::index_sequence<I...>) {
  constexpr int n = Pack<T>::kLanes, s = kStep;
  return shuffle<((I & s) ? n + int(I) - s : int(I))...>(a, b) +
         shuffle<((I & s) ? n + int(I) : int(I) + s)...>(a, b);
}

// Lane l of the result is the sum over all lanes of rows[l]; rows is overwritten.
template <int kStep = 1, class T>
inline Pack<T> sum_lanes(Pack<T>* rows) {
  constexpr int kLanes = Pack<T>::kLanes;
  using Indices = std::make_index_sequence<kLanes>;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; i += 2 * kStep)
    rows[i] = add_neighbours<kStep>(rows[i], rows[i + kStep], Indices{});
  if constexpr (2 * kStep < kLanes)
    return sum_lanes<2 * kStep>(rows);
  else
    return rows[0];
}

// out[j] lane l = Σ_c A[l][c] v[j][c], for l < rows <= kLanes (the other lanes repeat the last
// row).
template <class T>
inline void row_dots(const T* A, int64_t lda, int rows, int64_t n, const T* v, int64_t ldv, int k,
                     Pack<T>* out) {
  constexpr int kLanes = Pack<T>::kLanes;
  const T* row[kLanes];
  for (int l = 0; l < kLanes; ++l) row[l] = A + (l < rows ? l : rows - 1) * lda;
  const int64_t whole = n / kLanes * kLanes;
  const int tail = static_cast<int>(n - whole);
  for (int j = 0; j < k; ++j) {
    const T* vj = v + j * ldv;
    Pack<T> sum[kLanes];
    for (int l = 0; l < kLanes; ++l) sum[l] = Pack<T>(T(0));
    for (int64_t c = 0; c < whole; c += kLanes) {
      const Pack<T> x = Pack<T>::load(vj + c);
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) sum[l] = fma(Pack<T>::load(row[l] + c), x, sum[l]);
    }
    if (tail > 0) {
      const Pack<T> x = Pack<T>::load_partial(vj + whole, tail);
      for (int l = 0; l < kLanes; ++l)
        sum[l] = fma(Pack<T>::load_partial(row[l] + whole, tail), x, sum[l]);
    }
    out[j] = sum_lanes(sum);
  }
}

// J vectors x C registers of columns of out[j][c] = Σ_r w[r wr + j wj] A[r][c].
template <int J, int C, class T>
inline void row_sums_tile(const T* A, int64_t lda, int64_t rows, int width, const T* w, int64_t wr,
                          int64_t wj, T* out, int64_t ldo) {
  constexpr int kLanes = Pack<T>::kLanes;
  Pack<T> sum[J][C];
  for (int j = 0; j < J; ++j)
    for (int c = 0; c < C; ++c) sum[j][c] = Pack<T>(T(0));
  for (int64_t r = 0; r < rows; ++r) {
    Pack<T> x[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c)
      x[c] = C == 1 && width < kLanes ? Pack<T>::load_partial(A + r * lda, width)
                                      : Pack<T>::load(A + r * lda + c * kLanes);
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) {
      const Pack<T> weight(w[r * wr + j * wj]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[j][c] = fma(weight, x[c], sum[j][c]);
    }
  }
  for (int j = 0; j < J; ++j) {
    for (int c = 0; c < C; ++c) {
      if (C == 1 && width < kLanes)
        sum[j][c].store_partial(out + j * ldo, width);
      else
        sum[j][c].store(out + j * ldo + c * kLanes);
    }
  }
}

template <int J, class T>
inline void row_sums_columns(const T* A, int64_t lda, int64_t rows, int64_t n, const T* w,
                             int64_t wr, int64_t wj, T* out, int64_t ldo) {
  constexpr int kLanes = Pack<T>::kLanes;
  int64_t c = 0;
  for (; c + 4 * kLanes <= n; c += 4 * kLanes)
    row_sums_tile<J, 4>(A + c, lda, rows, kLanes, w, wr, wj, out + c, ldo);
  for (; c < n; c += kLanes) {
    const int width = static_cast<int>(n - c < kLanes ? n - c : kLanes);
    row_sums_tile<J, 1>(A + c, lda, rows, width, w, wr, wj, out + c, ldo);
  }
}

// out[j][c] = Σ_r w[r wr + j wj] A[r][c] for j < k, c < n.
template <class T>
inline void row_sums(const T* A, int64_t lda, int64_t rows, int64_t n, const T* w, int64_t wr,
                     int64_t wj, int k, T* out, int64_t ldo) {
  int j = 0;
  for (; j + 4 <= k; j += 4)
    row_sums_columns<4>(A, lda, rows, n, w + j * wj, wr, wj, out + j * ldo, ldo);
  for (; j < k; ++j) row_sums_columns<1>(A, lda, rows, n, w + j * wj, wr, wj, out + j * ldo, ldo);
}

template <class T>
inline constexpr int kOuterRows = Pack<T>::kLanes < 8 ? Pack<T>::kLanes : 8;

// out[r][c] = Σ_t left[t][r] right[t][c] for r < rows, c < n. left is readable up to the next
// multiple of kOuterRows.
template <class T>
inline void outer_sums(const T* left, int64_t ldl, const T* right, int64_t ldr, int terms, int rows,
                       int64_t n, T* out, int64_t ldo) {
  constexpr int kLanes = Pack<T>::kLanes, kRows = kOuterRows<T>;
  for (int r0 = 0; r0 < rows; r0 += kRows) {
    const int height = rows - r0 < kRows ? rows - r0 : kRows;
    for (int64_t c = 0; c < n; c += kLanes) {
      const int width = static_cast<int>(n - c < kLanes ? n - c : kLanes);
      Pack<T> sum[kRows];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) sum[r] = Pack<T>(T(0));
      for (int t = 0; t < terms; ++t) {
        const T* from = right + t * ldr + c;
        const Pack<T> x =
            width == kLanes ? Pack<T>::load(from) : Pack<T>::load_partial(from, width);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) sum[r] = fma(Pack<T>(left[t * ldl + r0 + r]), x, sum[r]);
      }
      for (int r = 0; r < height; ++r) {
        T* to = out + (r0 + r) * ldo + c;
        if (width == kLanes)
          sum[r].store(to);
        else
          sum[r].store_partial(to, width);
      }
    }
  }
}

}  // namespace kdops::KDOPS_ISA
