// The passes over one row-major matrix in L1 of which the Householder reductions are made. Rows are
// padded to whole registers (`stride` is a multiple of kLanes), padding is zero.
#pragma once

#include "common/simd/pack_math.h"
#include "common/simd/transpose.h"

namespace kdops::svd::KDOPS_ISA {

// A rank-one or rank-two update of rows first..rows-1 and, in the same pass, the combination of
// the updated rows that the next step needs:
//   a_i -= x_i y + z_i w;   sum = sum over i of weight_i a_i.     z, w null: rank one.
template <class T>
struct RowUpdate {
  const T *x, *y, *z, *w, *weight;
  T* sum;
};

template <int kPacks, bool kRankTwo, class T>
inline void update_columns(T* a, int stride, int first, int rows, const RowUpdate<T>& u, int col) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  P y[kPacks], w[kPacks], sum[kPacks];
#pragma GCC unroll 16
  for (int p = 0; p < kPacks; ++p) {
    y[p] = P::load(u.y + col + p * kLanes);
    if constexpr (kRankTwo) w[p] = P::load(u.w + col + p * kLanes);
    sum[p] = P(T(0));
  }
  T* row = a + static_cast<int64_t>(first) * stride + col;
  for (int i = first; i < rows; ++i, row += stride) {
    const P x(-u.x[i]), weight(u.weight[i]);
    P z(T(0));
    if constexpr (kRankTwo) z = P(-u.z[i]);
#pragma GCC unroll 16
    for (int p = 0; p < kPacks; ++p) {
      P value = fma(x, y[p], P::load(row + p * kLanes));
      if constexpr (kRankTwo) value = fma(z, w[p], value);
      value.store(row + p * kLanes);
      sum[p] = fma(weight, value, sum[p]);
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < kPacks; ++p) sum[p].store(u.sum + col + p * kLanes);
}

// Columns from `col` (rounded down to a whole register) on.
template <bool kRankTwo, class T>
void update_rows(T* a, int stride, int first, int rows, const RowUpdate<T>& u, int col) {
  constexpr int kLanes = Pack<T>::kLanes;
  int c = col / kLanes * kLanes;
  for (; c + 4 * kLanes <= stride; c += 4 * kLanes)
    update_columns<4, kRankTwo>(a, stride, first, rows, u, c);
  if (c + 2 * kLanes <= stride) {
    update_columns<2, kRankTwo>(a, stride, first, rows, u, c);
    c += 2 * kLanes;
  }
  if (c < stride) update_columns<1, kRankTwo>(a, stride, first, rows, u, c);
}

// out[i] = a_i . v for rows first..rows-1, v zero before `first`. Also copies column `first` of these
// rows to column[i]. Four rows at a time share their horizontal sums.
template <class T>
void row_dots(const T* a, int stride, int first, int rows, const T* v, T* column, T* out) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  const int begin = first / kLanes * kLanes;
  int i = first;
  for (; i + 4 <= rows; i += 4) {
    const T* row = a + static_cast<int64_t>(i) * stride;
    P sum[4] = {P(T(0)), P(T(0)), P(T(0)), P(T(0))};
    for (int c = begin; c < stride; c += kLanes) {
      const P weight = P::load(v + c);
      for (int r = 0; r < 4; ++r) sum[r] = fma(P::load(row + r * stride + c), weight, sum[r]);
    }
    reduce_add4(sum, out + i);
    for (int r = 0; r < 4; ++r) column[i + r] = row[r * stride + first];
  }
  for (; i < rows; ++i) {
    const T* row = a + static_cast<int64_t>(i) * stride;
    P sum(T(0));
    for (int c = begin; c < stride; c += kLanes) sum = fma(P::load(row + c), P::load(v + c), sum);
    out[i] = reduce_add(sum);
    column[i] = row[first];
  }
}

// out (n rows) = aT for n x n a; both padded to `stride` columns.
template <class T>
void transpose_square(const T* a, int n, int stride, T* out) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  for (int i = 0; i < stride; i += kLanes)
    for (int j = 0; j < stride; j += kLanes) {
      P rows[kLanes];
      for (int r = 0; r < kLanes; ++r) rows[r] = P::load(a + (i + r) * stride + j);
      transpose(rows);
      for (int r = 0; r < kLanes && j + r < n; ++r) rows[r].store(out + (j + r) * stride + i);
    }
}

// One chain of rotations of rows low..high of q: rows (i, i + 1) by the cosine c[i] and sine s[i].
// The row that all rotations share stays in registers, divided by the last cosine (c[low-1] = 1):
//   row i = (c[i] c[i-1]) moving + s[i] next,   moving = next - (s[i] / c[i] c[i-1]) moving.
// That is three fused operations an entry, not four, and `moving` waits for one of them a rotation.
// factors: c[i] c[i-1] (at i = high: c[high-1]), s[i], s[i] / c[i] c[i-1], `apart` from each other.
template <int kPacks, class T>
inline void rotate_chain_columns(T* q, int stride, int low, int high, const T* factors, int apart) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  P moving[kPacks];
  T* row = q + static_cast<int64_t>(low) * stride;
#pragma GCC unroll 16
  for (int p = 0; p < kPacks; ++p) moving[p] = P::load(row + p * kLanes);
  for (int i = low; i < high; ++i, row += stride) {
    const P along(factors[i]), sine(factors[i + apart]), tangent(factors[i + 2 * apart]);
#pragma GCC unroll 16
    for (int p = 0; p < kPacks; ++p) {
      const P next = P::load(row + stride + p * kLanes);
      add_product(sine * next, along, moving[p]).store(row + p * kLanes);
      moving[p] = subtract_product(next, tangent, moving[p]);
    }
  }
  const P along(factors[high]);
#pragma GCC unroll 16
  for (int p = 0; p < kPacks; ++p) (along * moving[p]).store(row + p * kLanes);
}

// Eight registers of columns at a time, the rest in one block: every block costs a branch that is
// predicted wrongly at the end of its loop, as chains are of any length.
template <int kMost, class T>
inline void rotate_chain_rest(T* q, int stride, int packs, int low, int high, const T* factors,
                              int apart) {
  if (packs == kMost)
    rotate_chain_columns<kMost>(q, stride, low, high, factors, apart);
  else if constexpr (kMost > 1)
    rotate_chain_rest<kMost - 1>(q, stride, packs, low, high, factors, apart);
}

template <class T>
void rotate_chain(T* q, int stride, int low, int high, const T* factors, int apart) {
  constexpr int kLanes = Pack<T>::kLanes;
  int col = 0;
  for (; col + 8 * kLanes <= stride; col += 8 * kLanes)
    rotate_chain_columns<8>(q + col, stride, low, high, factors, apart);
  rotate_chain_rest<7>(q + col, stride, (stride - col) / kLanes, low, high, factors, apart);
}

}  // namespace kdops::svd::KDOPS_ISA
