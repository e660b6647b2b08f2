// One item of the fused Gram losses: both Gram matrices, their difference, the loss and both
// gradients while its maps are in the cache.
//
// Two routes. By channels: D (c1 x c2) itself. By positions, where the maps are shorter than wide:
// with E = X - Y, D = E1 X2T + Y1 E2T, so that length x length products give loss and gradient,
//   |D|^2 = <E1T E1, X2T X2> + 2 <E1T Y1, X2T E2> + <Y1T Y1, E2T E2>
//   D X2  = E1 (X2T X2) + Y1 (E2T X2),   DT X1 = X2 (E1T X1) + E2 (Y1T X1).
// Taking the difference first keeps the digits of a loss that is small against the Grams.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/blas/gemm.h"
#include "common/shared/power_of_two.h"
#include "common/simd/long_sum.h"
#include "gram/dot_rows.h"
#include "gram/loss_simd.h"

namespace kdops::gram::KDOPS_ISA {

template <class T>
View<const T> rows_of(const Maps<T>& x, int64_t item) {
  return {x.data + item * x.batch, x.channel, x.position};
}
template <class T>
View<const T> dense(const T* data, int64_t cols) {
  return {data, cols, 1};
}

// out (c1 x c2) = alpha * a bT; with `spare`, as large as out, it is added.
template <class T>
void add_gram(View<const T> a, View<const T> b, int64_t c1, int64_t c2, int64_t length, T alpha,
              T* out, T* spare) {
  const bool accumulate = spare != nullptr;
  if (a.col == 1 && b.col == 1 && length >= 128) {
    T* target = accumulate ? spare : out;
    gram_by_dots(c1, c2, length, false, alpha, a, b, target);
    if (accumulate)
      for (int64_t i = 0; i < c1 * c2; ++i) out[i] += spare[i];
    return;
  }
  gemm<T>(c1, c2, length, alpha, a, b.turned(), {out, c2, 1}, accumulate);
}

// Where the gradient of an item goes: (channels x length), or with the channels innermost.
template <class T>
struct Target {
  T* data;
  int64_t channels, length;
  bool inner;
};

// target (+)= alpha * a b, a channels x depth and b depth x length.
template <class T>
void add_product(int64_t depth, T alpha, View<const T> a, View<const T> b, const Target<T>& to,
                 bool accumulate = false) {
  if (to.inner)
    gemm<T>(to.length, to.channels, depth, alpha, b.turned(), a.turned(), {to.data, to.channels, 1},
            accumulate);
  else
    gemm<T>(to.channels, to.length, depth, alpha, a, b, {to.data, to.length, 1}, accumulate);
}

template <class T>
Target<T> target_of(T* gradient, int64_t item, int64_t channels, int64_t length, bool inner) {
  return {gradient + item * channels * length, channels, length, inner};
}

// The sum of squares of d, also where a square would leave the range of T.
template <class T>
double sum_of_squares(const T* d, int64_t count) {
  const double sum = long_squares(d, count, T(1));
  constexpr int kFar = std::numeric_limits<T>::max_exponent - 28;
  if (sum > std::ldexp(1.0, -kFar) && sum < std::ldexp(1.0, kFar)) return sum;
  const T scale = row_scale(largest_size(d, count));
  return long_squares(d, count, scale) / scale / scale;
}

// D -> derivative of the loss by D, in place; returns the loss of the item.
template <class T>
T reduce_squares(T* d, int64_t count, T coefficient) {
  const double sum = sum_of_squares(d, count);
  for (int64_t i = 0; i < count; ++i) d[i] *= 2 * coefficient;
  return static_cast<T>(coefficient * sum);
}

// A pack of columns of D at a time. Norms are scaled by the largest entry, so that those of huge or
// tiny entries neither overflow nor vanish.
template <class T>
T reduce_columns(T* d, int64_t rows, int64_t cols, T coefficient) {
  using P = Pack<T>;
  const P zero(T(0));
  double total = 0;
  for_packs<T>(cols, [&](int64_t j, int lanes) {
    const auto entry = [&](int64_t i) { return load_some(d + i * cols + j, lanes); };
    P largest = zero, sum = zero;
    for (int64_t i = 0; i < rows; ++i) largest = max(abs(entry(i)), largest);
    const P unit = select(largest > zero, largest, P(T(1)));
    for (int64_t first = 0; first < rows; first += kSumBlock) {
      P part = zero;
      for (int64_t i = first; i < std::min(rows, first + kSumBlock); ++i) {
        const P value = entry(i) / unit;
        part = fma(value, value, part);
      }
      sum += part;
    }
    const P norm = unit * sqrt(sum);  // NaN where the column has one
    for (int64_t i = 0; i < rows; ++i)
      store_some(select(norm > zero, P(coefficient) * (entry(i) / norm), norm * zero),
                 d + i * cols + j, lanes);
    for (int l = 0; l < lanes; ++l) total += static_cast<double>(norm.lane(l));
  });
  return static_cast<T>(coefficient * total);
}

// d + dT in place, n x n.
template <class T>
void add_transpose(T* d, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j) d[i * n + j] = d[j * n + i] = d[i * n + j] + d[j * n + i];
}

template <class T>
void item_by_channels(const GramLoss<T>& p, int64_t b, T* d, T* spare) {
  const View<const T> x1 = rows_of(p.x1, b), x2 = rows_of(p.x2, b);
  add_gram(x1, x2, p.c1, p.c2, p.student_length, p.scale_s, d, static_cast<T*>(nullptr));
  add_gram(rows_of(p.y1, b), rows_of(p.y2, b), p.c1, p.c2, p.teacher_length, -p.scale_t, d, spare);
  p.loss[b] = p.columns ? reduce_columns(d, p.c1, p.c2, p.coefficient)
                        : reduce_squares(d, p.c1 * p.c2, p.coefficient);
  if (p.g1 == nullptr && p.g2 == nullptr) return;  // one alone: a side without channels
  const int64_t n = p.student_length;
  const T scale = p.symmetric && !p.columns ? 2 * p.scale_s : p.scale_s;
  if (p.symmetric && p.columns) add_transpose(d, p.c1);  // column norms pull unevenly
  const View<const T> pull = dense<T>(d, p.c2);
  add_product(p.c2, scale, pull, x2, target_of(p.g1, b, p.c1, n, p.inner1));
  if (!p.symmetric)
    add_product(p.c1, scale, pull.turned(), x1, target_of(p.g2, b, p.c2, n, p.inner2));
}

template <class T>
void difference(View<const T> x, View<const T> y, int64_t rows, int64_t cols, T* out) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j)
      out[i * cols + j] = x.data[i * x.row + j * x.col] - y.data[i * y.row + j * y.col];
}

// Work space of the route by positions: E1, E2 and eight length x length products.
template <class T>
struct Positions {
  Scratch<T> e1, e2, products;
  Positions(int64_t c1, int64_t c2, int64_t length)  // c2 = 0: x2 is x1
      : e1(c1 * length), e2(c2 * length), products(8 * length * length) {}
};

// Whether the products of both sides and products of two of them stay in range: maps whose sides
// are of very different scales, or all zero, go through their channels.
template <class T>
bool products_in_range(const T* products, int64_t nn) {
  constexpr int kFar = std::numeric_limits<T>::max_exponent / 2 - 4;
  const T low = std::ldexp(T(1), -kFar), high = std::ldexp(T(1), kFar);
  const T first = largest_size(products, 3 * nn), second = largest_size(products + 3 * nn, 3 * nn);
  return first > low && first < high && second > low && second < high;
}

template <class T>
void item_by_positions(const GramLoss<T>& p, int64_t b, Positions<T>& work) {
  const int64_t n = p.student_length, nn = n * n;
  const View<const T> x1 = rows_of(p.x1, b), x2 = rows_of(p.x2, b), y1 = rows_of(p.y1, b);
  difference(x1, y1, p.c1, n, work.e1.get());
  if (!p.symmetric) difference(x2, rows_of(p.y2, b), p.c2, n, work.e2.get());
  const View<const T> e1 = dense<T>(work.e1.get(), n);
  const View<const T> e2 = p.symmetric ? e1 : dense<T>(work.e2.get(), n);
  T* e1e1 = work.products.get();
  T *e1y1 = e1e1 + nn, *y1y1 = e1y1 + nn, *x2x2 = y1y1 + nn, *x2e2 = x2x2 + nn, *e2e2 = x2e2 + nn;
  T *e1x1 = e2e2 + nn, *y1x1 = e1x1 + nn;
  const auto product = [n](View<const T> a, View<const T> c, int64_t depth, T* out) {
    gemm<T>(n, n, depth, T(1), a.turned(), c, {out, n, 1});
  };
  product(e1, e1, p.c1, e1e1);
  product(e1, y1, p.c1, e1y1);
  product(y1, y1, p.c1, y1y1);
  product(x2, x2, p.c2, x2x2);
  product(x2, e2, p.c2, x2e2);
  product(e2, e2, p.c2, e2e2);
  if (!products_in_range(e1e1, nn)) {
    Scratch<T> d(p.c1 * p.c2), spare(p.c1 * p.c2);
    return item_by_channels(p, b, d.get(), spare.get());
  }
  const double square = static_cast<double>(p.scale_s) * p.scale_s * p.coefficient;
  const double sum =
      long_inner(e1e1, x2x2, nn) + 2 * long_inner(e1y1, x2e2, nn) + long_inner(y1y1, e2e2, nn);
  // a square, but for rounding; NaN stays
  p.loss[b] = sum < 0 ? T(0) : static_cast<T>(square * sum);
  if (p.g1 == nullptr && p.g2 == nullptr) return;  // one alone: a side without channels
  const T scale = static_cast<T>(2 * square * (p.symmetric ? 2 : 1));
  const Target<T> g1 = target_of(p.g1, b, p.c1, n, p.inner1);
  add_product(n, scale, e1, dense<T>(x2x2, n), g1);
  // E2T X2 = (X2T E2)T; gemm packs a transposed right side
  add_product(n, scale, y1, dense<T>(x2e2, n).turned(), g1, true);
  if (p.symmetric) return;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) {  // X1 = E1 + Y1
      e1x1[i * n + j] = e1e1[i * n + j] + e1y1[i * n + j];
      y1x1[i * n + j] = e1y1[j * n + i] + y1y1[i * n + j];
    }
  const Target<T> g2 = target_of(p.g2, b, p.c2, n, p.inner2);
  add_product(n, scale, x2, dense<T>(e1x1, n), g2);
  add_product(n, scale, e2, dense<T>(y1x1, n), g2, true);
}

}  // namespace kdops::gram::KDOPS_ISA
