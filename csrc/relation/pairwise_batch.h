// What the glue of the pairwise ops shares: arguments, results, and the batch as one range of rows.
#pragma once

#include <torch/csrc/stable/library.h>

#include <cstring>
#include <optional>
#include <tuple>

#include "relation/finish.h"

namespace kdops::relation {

using Pair = std::tuple<Tensor, Tensor>;

inline void check_pair(const char* op, const Tensor& x, const std::optional<Tensor>& y) {
  check_dim(op, "x", x, 3);
  if (y) check_sizes(op, "y", *y, x, {x.size(0), kAnySize, x.size(2)});
}

inline Tensor none(const Tensor& x) { return empty_for(x, {0}); }

// Matrix b of a batch (B, n, m).
template <class T>
inline T* batch_data(const Tensor& x, int64_t b) {
  return pointer<T>(x) + b * x.size(1) * x.size(2);
}
template <class T>
inline Rows<T> batch_rows(const Tensor& x, int64_t b) {
  return {batch_data<T>(x, b), x.size(1), x.size(2)};
}

// The cotangent of the pairs, and what else is of their shape.
inline void check_pairs(const char* op, const char* name, const Tensor& pairs, const Tensor& x,
                        const std::optional<Tensor>& y) {
  check_sizes(op, name, pairs, x, {x.size(0), x.size(1), (y ? *y : x).size(1)});
}

// The rows of all matrices of the batch as one range.
template <class Body>
inline void over_batch(const Tensor& x, double flops, const Body& body) {
  const int64_t n = x.size(1);
  parallel_for(x.size(0) * n, flops,
               [&](int64_t begin, int64_t end) { over_items(begin, end, n, body); });
}

template <class T>
inline void add_transposes(Tensor& w) {
  const int64_t n = w.size(1), tiles = tile_rows(n);
  parallel_for(w.size(0) * tiles, 1.0 * kTileSide * n, [&](int64_t begin, int64_t end) {
    over_items(begin, end, tiles, [&](int64_t b, int64_t first, int64_t last) {
      KDOPS_BEST(add_transpose<T>)(batch_data<T>(w, b), n, first, last);
    });
  });
}

// Rows of scale (diag(V 1) - V) in the place of the weights V, of every matrix of a batch (B, n, n).
template <class T>
inline void to_laplacians(Tensor& w, T scale) {
  const int64_t n = w.size(1);
  over_batch(w, kPairFlops * n, [&](int64_t b, int64_t begin, int64_t end) {
    KDOPS_BEST(laplacian<T>)(batch_data<T>(w, b), n, scale, begin, end);
  });
}

// Groups of anchors that sum their opposite sides apart: fixed, so that the order of sums is.
inline int64_t anchor_groups(int64_t n) { return std::min<int64_t>(n, 4); }

// dL/dD (1, n, n) of the angles, both places of a pair added: weights(w, m, group, first anchor,
// last) is a kernel of the kind of angles_backward, with so many flops a triple.
template <class T, class Weights>
Tensor angle_weights(const Tensor& x, double flops, const Weights& weights) {
  const int64_t n = x.size(0), groups = anchor_groups(n);
  Tensor w = empty_for(x, {1, n, n});
  Scratch<T> opposite(groups * n * n);
  T* total = pointer<T>(w);
  parallel_for(groups, flops * n * n * n / std::max<int64_t>(groups, 1),
               [&](int64_t begin, int64_t end) {
                 for (int64_t g = begin; g < end; ++g) {
                   T* m = opposite.get() + g * n * n;
                   std::memset(m, 0, sizeof(T) * n * n);
                   weights(total, m, g, n * g / groups, n * (g + 1) / groups);
                 }
               });
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t e = 0; e < n * n; ++e) total[e] += opposite[g * n * n + e];
  add_transposes<T>(w);
  return w;
}

}  // namespace kdops::relation
