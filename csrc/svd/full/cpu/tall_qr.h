// Householder QR of one tall row-major matrix, and the product of its Q with a small matrix.
//
// One pass over the rows per column: it applies the previous reflector and sums, over the rows
// below, x_r a_r, where x is the next column. That sum holds the column's norm and the products
// of its reflector with all later columns, because the reflector is affine in x.
#pragma once

#include "common/simd/long_sum.h"
#include "svd/full/cpu/tall_products.h"
#include "svd/shared/reflector.h"

namespace kdops::svd::KDOPS_ISA {

template <class T>
struct TallQr {
  T* a;  // m x n, rows padded with zeros to `stride`; after the factorisation v below R
  int64_t m;
  int n, stride;
  T *scale, *tau, *w, *sum;  // stride numbers each
};

// Columns col.. of rows k + 1..: a_r -= a_r[k - 1] w, then sum = sum over r of x_r a_r with
// x_r = a_r[k]. Where this block holds column k itself, x_r is not updated yet: pending = w[k].
template <int kPacks, class T>
inline void qr_pass_columns(const TallQr<T>& qr, int k, int col, T pending) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes, kRows = kPacks == 1 ? 4 : 2;
  const int64_t stride = qr.stride;
  const int previous = k > 0 ? k - 1 : 0;
  P update[kPacks];
  LongSum<P> whole[kPacks];
#pragma GCC unroll 16
  for (int p = 0; p < kPacks; ++p) update[p] = -P::load(qr.w + col + p * kLanes);
  const auto step = [&](T* row, P* acc) {
    const P reflected(row[previous]), weight(row[k] - row[previous] * pending);
#pragma GCC unroll 16
    for (int p = 0; p < kPacks; ++p) {
      const P value = fma(reflected, update[p], P::load(row + col + p * kLanes));
      value.store(row + col + p * kLanes);
      acc[p] = fma(weight, value, acc[p]);
    }
  };
  int64_t r = k + 1;
  T* row = qr.a + r * stride;
  while (r < qr.m) {
    const int64_t end = std::min(r + kLongBlock, qr.m);
    P total[kRows][kPacks];
#pragma GCC unroll 16
    for (auto& sums : total)
#pragma GCC unroll 16
      for (P& sum : sums) sum = P(T(0));
    for (; r + kRows <= end; r += kRows, row += kRows * stride)
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) step(row + i * stride, total[i]);
    for (; r < end; ++r, row += stride) step(row, total[0]);
#pragma GCC unroll 16
    for (int p = 0; p < kPacks; ++p) {
      for (int i = 1; i < kRows; ++i) total[0][p] += total[i][p];
      whole[p].add(total[0][p]);
    }
  }
  for (int p = 0; p < kPacks; ++p) whole[p].sum.store(qr.sum + col + p * kLanes);
}

template <class T>
void qr_pass(const TallQr<T>& qr, int k) {
  constexpr int kLanes = Pack<T>::kLanes;
  int col = k / kLanes * kLanes;
  T pending = qr.w[k];
  while (col < qr.stride) {
    const int packs = (qr.stride - col) / kLanes;
    const int now = packs >= 4 ? 4 : packs >= 2 ? 2 : 1;
    if (now == 4)
      qr_pass_columns<4>(qr, k, col, pending);
    else if (now == 2)
      qr_pass_columns<2>(qr, k, col, pending);
    else
      qr_pass_columns<1>(qr, k, col, pending);
    col += now * kLanes;
    pending = T(0);
  }
}

// r (n x n, contiguous) = R; qr.a becomes V, unit lower trapezoidal.
template <class T>
void factorise(const TallQr<T>& qr, T* r) {
  const auto [a, m, n, stride, scale, tau, w, sum] = qr;
  for (int j = 0; j < stride; ++j) w[j] = scale[j] = T(0);
  for (int k = 0; k < n; ++k) {
    T* row = a + static_cast<int64_t>(k) * stride;
    if (k > 0)
      for (int j = k; j < n; ++j) row[j] -= row[k - 1] * w[j];
    qr_pass(qr, k);
    const Reflector<T> h = make_reflector(row[k], sum[k]);
    scale[k] = h.scale;
    tau[k] = h.tau;
    w[k] = T(0);
    for (int j = 0; j < k; ++j) r[k * n + j] = T(0);
    r[k * n + k] = h.beta;
    for (int j = k + 1; j < n; ++j) {
      const T reflected = h.tau * (row[j] + h.scale * sum[j]);
      r[k * n + j] = row[j] - reflected;
      w[j] = h.scale * reflected;
    }
  }
  using P = Pack<T>;
  for (int64_t i = 0; i < m; ++i) {
    T* row = a + i * stride;
    for (int c = 0; c < stride; c += P::kLanes)
      (P::load(scale + c) * P::load(row + c)).store(row + c);
    if (i < n) {
      row[i] = T(1);
      for (int j = static_cast<int>(i) + 1; j < n; ++j) row[j] = T(0);
    }
  }
}

// Memory for tall_apply: two n x width arrays, width = n rounded up to kProductPacks registers.
template <class T>
inline int product_width(int n) {
  constexpr int kCols = kProductPacks * Pack<T>::kLanes;
  return (n + kCols - 1) / kCols * kCols;
}

// out (m x n) = Q (x; 0) for n x n x, rows `width` apart: Q (x; 0) = (x; 0) - V M with
// M = T V_1T x solved from T^-1 = diag(1 / tau) + the strict upper triangle of VT V.
template <class T>
void tall_apply(const TallQr<T>& qr, const T* x, T* memory, T* out, int64_t out_stride) {
  using P = Pack<T>;
  const int n = qr.n, width = product_width<T>(n);
  T *gram = memory, *solution = memory + static_cast<int64_t>(n) * width;
  tall_gram(qr.a, qr.m, n, qr.stride, gram, width, solution);
  for (int i = n - 1; i >= 0; --i)
    for (int c = 0; c < width; c += P::kLanes) {
      P value = P::load(x + i * width + c);
      for (int j = i + 1; j < n; ++j) {
        value = fma(P(qr.a[static_cast<int64_t>(j) * qr.stride + i]), P::load(x + j * width + c),
                    value);
        value = fma(P(gram[i * width + j]), P::load(solution + j * width + c), value);
      }
      (P(-qr.tau[i]) * value).store(solution + i * width + c);
    }
  multiply<T>({qr.m, n, n, {qr.a, qr.stride}, {solution, width}, {out, out_stride}});
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) out[i * out_stride + j] += x[i * width + j];
}

}  // namespace kdops::svd::KDOPS_ISA
