// CPU glue of far.h, for both ops of angles.
#pragma once

#include <cstring>

#include "relation/pairwise_batch.h"

namespace kdops::relation {

// Rows of double (N, D), and what is known of their pairs.
struct FarRows {
  Tensor x;
  double scale;
  Scratch<double> square, rest, inverse;
  FarPairs pairs;

  explicit FarRows(const Tensor& x_in)
      : x(x_in),
        scale(Common<double>({rows_of<double>(x)}, {.centre = false}).scale),
        square(x.size(0) * x.size(0)),
        rest(x.size(0) * x.size(0)),
        inverse(x.size(0) * x.size(0)),
        pairs{x.size(0), square.get(), rest.get(), inverse.get()} {
    parallel_for(pairs.n, 16.0 * pairs.n * x.size(1), [&](int64_t begin, int64_t end) {
      KDOPS_BEST(far_pairs)(rows_of<double>(x), scale, pairs, begin, end);
    });
  }
};

// Groups of anchors that sum their opposite sides apart: fixed, so that the order of sums is.
inline int64_t far_groups(int64_t n) { return std::min<int64_t>(n, 4); }

// factor * dL/dx, weights(w, m, group, first anchor, last) being one of the calls of far.h.
template <class Weights>
Tensor far_gradient(const FarRows& rows, double factor, const Weights& weights) {
  const int64_t n = rows.pairs.n, groups = far_groups(n);
  Tensor w = empty_for(rows.x, {1, n, n});
  Scratch<double> opposite(groups * n * n);
  double* total = pointer<double>(w);
  parallel_for(groups, 24.0 * n * n * n / groups, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      double* m = opposite.get() + g * n * n;
      std::memset(m, 0, sizeof(double) * n * n);
      weights(total, m, g, n * g / groups, n * (g + 1) / groups);
    }
  });
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t e = 0; e < n * n; ++e) total[e] += opposite[g * n * n + e];
  add_transposes<double>(w);
  const SplitScale<double> scale(rows.scale);
  const double inside = 2 * factor * scale.inside;
  over_batch(w, kPairFlops * n, [&](int64_t, int64_t begin, int64_t end) {
    KDOPS_BEST(laplacian<double>)(total, n, inside, begin, end);
  });
  // never from a product: centred, rows that are near lose each other
  const std::vector<uint8_t> lossy(n, 1);
  const Rows<double> given = rows_of<double>(rows.x);
  Tensor grad = empty_for(rows.x, {n, rows.x.size(1)});
  finish<double>(
      {lossy.data(), total, given, given, rows.scale, -1.0, scale.after, pointer<double>(grad)});
  return grad;
}

}  // namespace kdops::relation
