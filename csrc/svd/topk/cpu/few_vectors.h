// The three products of a row-major matrix with few vectors that the top-k SVD is made of.
//
// short_row_dots: A v (rows against vectors), row_sums: Aᵀ w, outer_sums: Σ left_t right_tᵀ. Each one
// reads A or writes its result once; the few vectors stay in L1. Leading dimensions are in
// elements.
#pragma once

#include "common/blas/dot_tile.h"
#include "common/blas/gemm.h"
#include "common/simd/long_sum.h"
#include "common/simd/transpose.h"
#include "svd/limits.h"

namespace kdops::svd::KDOPS_ISA {

// `count` rows, `apart` from each other.
template <class T>
struct RowSpan {
  const T* data;
  int64_t apart, count;
  const T* at(int64_t i) const { return data + i * apart; }
  const T* at_most(int64_t i) const { return at(i < count ? i : count - 1); }
};

// out[i rs + j cs] = Σ_l a[i][l] b[j][l] for the rows of a and of b, of n numbers.
template <class T>
inline void inner_products(RowSpan<T> a, RowSpan<T> b, int64_t n, T* out, int64_t rs, int64_t cs) {
  constexpr int R = kDotRows, C = kDotColumns;
  for (int i0 = 0; i0 < a.count; i0 += R) {
    for (int j0 = 0; j0 < b.count; j0 += C) {
      const T *x[R], *y[C];
      for (int r = 0; r < R; ++r) x[r] = a.at_most(i0 + r);
      for (int c = 0; c < C; ++c) y[c] = b.at_most(j0 + c);
      LongSum<T> whole[kDotSums<T>];
      for (int64_t first = 0; first == 0 || first < n; first += kLongBlock * Pack<T>::kLanes) {
        const int64_t count = std::min(n - first, kLongBlock * Pack<T>::kLanes);
        T tile[kDotSums<T>];
        dot_tile<false>(x, y, count, T(1), tile);
        for (int q = 0; q < R * C; ++q) whole[q].add(tile[q]);
        for (const T*& row : x) row += count;
        for (const T*& row : y) row += count;
      }
      for (int r = 0; r < R && i0 + r < a.count; ++r)
        for (int c = 0; c < C && j0 + c < b.count; ++c)
          out[(i0 + r) * rs + (j0 + c) * cs] = whole[r * C + c].sum;
    }
  }
}

// Hides where a pointer came from: else the compiler keeps kLanes row pointers, on the stack.
template <class T>
inline const T* opaque(const T* p) {
  asm("" : "+r"(p));
  return p;
}

// kLanes rows of A, transposed block by block, against N vectors that lie interleaved, v[c N + j]:
// out[j] lane l = Σ_c A[l][c] v[c N + j]. Not inlined: it needs every register.
template <int N, class T>
[[gnu::noinline]] void transposed_dots(const T* A, int64_t lda, int rows, int n, const T* v,
                                       Pack<T>* out) {
  constexpr int kLanes = Pack<T>::kLanes;
  Pack<T> sum[N];
#pragma GCC unroll 8
  for (int j = 0; j < N; ++j) sum[j] = Pack<T>(T(0));
  int c = 0;
  for (; rows == kLanes && c + kLanes <= n; c += kLanes) {
    Pack<T> x[kLanes];
    const T* row = A + c;
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) {
      x[l] = Pack<T>::load(row);
      row = opaque(row + lda);
    }
    transpose(x);
    const T* weights = v + c * N;
#pragma GCC unroll 16
    for (int q = 0; q < kLanes; ++q)
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sum[j] = fma(Pack<T>(weights[q * N + j]), x[q], sum[j]);
  }
  for (; c < n; c += kLanes) {
    const int width = n - c < kLanes ? n - c : kLanes;
    Pack<T> x[kLanes];
    for (int l = 0; l < kLanes; ++l)
      x[l] = l < rows ? Pack<T>::load_partial(A + l * lda + c, width) : Pack<T>(T(0));
    transpose(x);
    for (int q = 0; q < width; ++q)
      for (int j = 0; j < N; ++j) sum[j] = fma(Pack<T>(v[(c + q) * N + j]), x[q], sum[j]);
  }
#pragma GCC unroll 8
  for (int j = 0; j < N; ++j) out[j] = sum[j];
}

// The largest group of transposed_dots that `left` vectors fill.
inline constexpr int dots_group(int left) {
  return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

// v (k vectors of length n, ldv apart) in the order of short_row_dots: group by group, interleaved.
template <class T>
inline void interleave_vectors(const T* v, int64_t ldv, int k, int n, T* out) {
  for (int j0 = 0; j0 < k; j0 += dots_group(k - j0)) {
    const int group = dots_group(k - j0);
    for (int j = 0; j < group; ++j)
      for (int c = 0; c < n; ++c) out[j0 * n + c * group + j] = v[(j0 + j) * ldv + c];
  }
}

// out[j] lane l = Σ_c A[l][c] v_j[c] for rows <= kLanes rows (the other lanes are zero) and k
// vectors from interleave_vectors.
template <class T>
inline void short_row_dots(const T* A, int64_t lda, int rows, int n, const T* v, int k,
                           Pack<T>* out) {
  for (int j = 0; j < k; j += dots_group(k - j)) {
    const int count = dots_group(k - j);
    const T* group = v + j * n;
    if (count == 8) transposed_dots<8>(A, lda, rows, n, group, out + j);
    if (count == 4) transposed_dots<4>(A, lda, rows, n, group, out + j);
    if (count == 2) transposed_dots<2>(A, lda, rows, n, group, out + j);
    if (count == 1) transposed_dots<1>(A, lda, rows, n, group, out + j);
  }
}

// J vectors x C registers of columns: out[j][c] (+)= Σ_r w[r][j] A[r][c].
template <int J, int C, class T>
inline void row_sums_tile(RowSpan<T> A, int width, View<const T> w, bool first, T* out,
                          int64_t ldo) {
  constexpr int kLanes = Pack<T>::kLanes;
  const int lanes = C == 1 ? width : kLanes;  // one register may be partial, more are whole
  const auto fetch = [&](const T* p) { return load_some(p, lanes); };
  Pack<T> sum[J][C];
  for (int j = 0; j < J; ++j)
    for (int c = 0; c < C; ++c)
      sum[j][c] = first ? Pack<T>(T(0)) : fetch(out + j * ldo + c * kLanes);
  for (int64_t r = 0; r < A.count; ++r) {
    Pack<T> x[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) x[c] = fetch(A.at(r) + c * kLanes);
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) {
      const Pack<T> weight(w.at(r, j));
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[j][c] = fma(weight, x[c], sum[j][c]);
    }
  }
  for (int j = 0; j < J; ++j)
    for (int c = 0; c < C; ++c) store_some(sum[j][c], out + j * ldo + c * kLanes, lanes);
}

template <int J, class T>
inline void row_sums_columns(RowSpan<T> A, int64_t n, View<const T> w, bool first, T* out,
                             int64_t ldo) {
  constexpr int kLanes = Pack<T>::kLanes;
  int64_t c = 0;
  const auto from = [&] { return RowSpan<T>{A.data + c, A.apart, A.count}; };
  for (; c + 4 * kLanes <= n; c += 4 * kLanes)
    row_sums_tile<J, 4>(from(), kLanes, w, first, out + c, ldo);
  for (; c < n; c += kLanes) {
    const int width = static_cast<int>(n - c < kLanes ? n - c : kLanes);
    row_sums_tile<J, 1>(from(), width, w, first, out + c, ldo);
  }
}

// out[j][c] (add: +)= Σ_r w[r][j] A[r][c] for j < k, c < n; kSumRows rows at a time, so that
// the hardware follows a few streams along the rows (down a column they would fall on the same
// cache sets when n is a power of two).
template <class T>
inline void row_sums(RowSpan<T> A, int64_t n, View<const T> w, int k, T* out, int64_t ldo,
                     bool add = false) {
  constexpr int64_t kSumRows = 16;
  for (int64_t r = 0; r < A.count; r += kSumRows) {
    const RowSpan<T> block{A.at(r), A.apart, std::min(A.count - r, kSumRows)};
    const auto weights = [&](int j) { return View<const T>{&w.at(r, j), w.row, w.col}; };
    const bool first = r == 0 && !add;
    int j = 0;
    for (; j + 4 <= k; j += 4) row_sums_columns<4>(block, n, weights(j), first, out + j * ldo, ldo);
    for (; j < k; ++j) row_sums_columns<1>(block, n, weights(j), first, out + j * ldo, ldo);
  }
}

// row_sums of any number of rows, into k rows of n numbers without a gap.
template <class T>
void long_row_sums(RowSpan<T> A, int64_t n, View<const T> w, int k, T* out) {
  sum_by_slabs(A.count, kOneSlab, k * n, out, [&](int64_t first, int64_t count, T* part) {
    row_sums<T>({A.at(first), A.apart, count}, n, {&w.at(first, 0), w.row, w.col}, k, part, n);
  });
}

template <class T>
inline constexpr int kOuterRows = Pack<T>::kLanes < 8 ? Pack<T>::kLanes : 8;

// kOuterRows rows x one register of columns; `store` gets the row and its sum.
template <class T, class Fetch, class Store>
inline void outer_tile(RowSpan<T> left, RowSpan<T> right, int64_t r0, int64_t c, const Fetch& fetch,
                       const Store& store) {
  constexpr int kRows = kOuterRows<T>;
  Pack<T> sum[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sum[r] = Pack<T>(T(0));
  for (int64_t t = 0; t < left.count; ++t) {
    const T* weights = left.at(t) + r0;
    const Pack<T> x = fetch(right.at(t) + c);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sum[r] = fma(Pack<T>(weights[r]), x, sum[r]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) store(r, sum[r]);
}

// out[r][c] = Σ_t left[t][r] right[t][c] for r < rows, c < n. left is readable up to the next
// multiple of kOuterRows.
template <class T>
inline void outer_sums(RowSpan<T> left, RowSpan<T> right, int rows, int64_t n, T* out,
                       int64_t ldo) {
  constexpr int kLanes = Pack<T>::kLanes, kRows = kOuterRows<T>;
  for (int r0 = 0; r0 < rows; r0 += kRows) {
    const int height = rows - r0;
    T* to = out + r0 * ldo;
    int64_t c = 0;
    if (height >= kRows) {
      for (; c + kLanes <= n; c += kLanes)
        outer_tile<T>(
            left, right, r0, c, [](const T* p) { return Pack<T>::load(p); },
            [&](int r, Pack<T> x) { x.store(to + r * ldo + c); });
    }
    for (; c < n; c += kLanes) {
      const int width = static_cast<int>(n - c < kLanes ? n - c : kLanes);
      outer_tile<T>(
          left, right, r0, c, [&](const T* p) { return Pack<T>::load_partial(p, width); },
          [&](int r, Pack<T> x) {
            if (r < height) x.store_partial(to + r * ldo + c, width);
          });
    }
  }
}

}  // namespace kdops::svd::KDOPS_ISA
