// What every affinity kernel needs of its inputs: centred rows, their transpose and their norms,
// and the squared distances that come out of a product of them.
//
// |x_i - y_j|^2 = n_i + n_j - 2 <x_i, y_j> of centred rows costs digits where the rows are much
// closer to each other than to the centre (duplicates, clusters), and overflows for huge values.
// Such pairs are few; they are taken again, directly, from the rows as they were given.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/blas/differences.h"
#include "common/blas/gemm.h"
#include "common/simd/exp.h"
#include "rbf/affinity_simd.h"

namespace kdops::rbf::KDOPS_ISA {

template <class T>
T distance_of(const T* x, const T* y, int64_t width) {
  Pack<T> sum(T(0));
  for_packs<T>(width, [&](int64_t k, int lanes) {
    const Pack<T> difference = load_some(x + k, lanes) - load_some(y + k, lanes);
    sum = fma(difference, difference, sum);
  });
  return reduce_add(sum);
}

// Squared distances of row i of x to `count` <= kLanes rows j.. of y, from their inner products.
template <class T>
inline Pack<T> distances(const RowSet<T>& x, int64_t i, const RowSet<T>& y, int64_t j, int count,
                         Pack<T> products) {
  using P = Pack<T>;
  const P norms = P(x.norms[i]) + load_some(y.norms + j, count);
  P squared = fma(P(T(-2)), products, norms);
  const auto close = !(squared > P(T(kClosePart)) * norms);  // NaN and Inf - Inf count as close
  if (any(close)) {
    for (int l = 0; l < count; ++l)
      if (close.bits[l])
        squared.set_lane(l,
                         distance_of(x.given + i * x.width, y.given + (j + l) * y.width, x.width));
  }
  return squared;
}

// The mean of the rows of one or two sets, entries that are not finite left out: NaN stays in its
// own row. Any centre is right; a good one keeps digits.
template <class T>
void mean_of(const T* x, int64_t n, const T* y, int64_t m, int64_t width, T* mean) {
  const auto add = [&](const T* rows, int64_t count, bool finite_only) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t k = 0; k < width; ++k) {
        const T value = rows[i * width + k];
        mean[k] += finite_only && !std::isfinite(value) ? T(0) : value;
      }
  };
  bool finite = true;
  for (const bool finite_only : {false, true}) {
    for (int64_t k = 0; k < width; ++k) mean[k] = T(0);
    add(x, n, finite_only);
    add(y, m, finite_only);
    finite = true;
    for (int64_t k = 0; k < width; ++k) finite = finite && std::isfinite(mean[k]);
    if (finite) break;
  }
  const T scale = finite && n + m > 0 ? T(1) / static_cast<T>(n + m) : T(0);
  for (int64_t k = 0; k < width; ++k) mean[k] = finite ? mean[k] * scale : T(0);
}

// Rows begin..end of x.given, minus the centre, into x.centred; norms, sizes, the transpose where
// it has a place.
template <class T>
void centre_rows(const RowSet<T>& x, const T* centre, int64_t begin, int64_t end) {
  constexpr T kMostSize = std::numeric_limits<T>::max() / 4;  // no weight times it is NaN
  const int64_t width = x.width;
  for (int64_t i = begin; i < end; ++i) {
    T* row = x.centred + i * width;
    for (int64_t k = 0; k < width; ++k) row[k] = x.given[i * width + k] - centre[k];
    x.norms[i] = short_inner(row, row, width);
    x.sizes[i] = std::min(std::sqrt(x.norms[i]), kMostSize);  // NaN stays
  }
  if (x.transposed == nullptr) return;
  constexpr int64_t kBlock = 16;
  for (int64_t i0 = begin; i0 < end; i0 += kBlock)
    for (int64_t k0 = 0; k0 < width; k0 += kBlock)
      for (int64_t k = k0; k < std::min(k0 + kBlock, width); ++k)
        for (int64_t i = i0; i < std::min(i0 + kBlock, end); ++i)
          x.transposed[k * x.count + i] = x.centred[i * width + k];
}

}  // namespace kdops::rbf::KDOPS_ISA
