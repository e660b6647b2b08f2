// What the glue of the pairwise ops shares: arguments, results, and the batch as one range of rows.
#pragma once

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "relation/finish.h"

namespace kdops::relation {

using Pair = std::tuple<Tensor, Tensor>;

inline void check_pair(const char* op, const Tensor& x, const std::optional<Tensor>& y) {
  check_dim(op, "x", x, 3);
  if (!y) return;
  check_dim(op, "y", *y, 3);
  check_like(op, "y", *y, x);
  check_size(op, "y", *y, 0, x.size(0));
  check_size(op, "y", *y, 2, x.size(2));
}

inline Tensor like(const Tensor& x) { return empty_for(x, {x.size(0), x.size(1), x.size(2)}); }
inline Tensor none(const Tensor& x) { return empty_for(x, {0}); }

template <class T>
inline Rows<T> batch_rows(const Tensor& x, int64_t b) {
  return {pointer<T>(x) + b * x.size(1) * x.size(2), x.size(1), x.size(2)};
}

// The cotangent of the pairs, and what else is of their shape.
inline void check_pairs(const char* op, const char* name, const Tensor& pairs, const Tensor& x,
                        const std::optional<Tensor>& y) {
  check_dim(op, name, pairs, 3);
  check_like(op, name, pairs, x);
  check_size(op, name, pairs, 0, x.size(0));
  check_size(op, name, pairs, 1, x.size(1));
  check_size(op, name, pairs, 2, (y ? *y : x).size(1));
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
      KDOPS_BEST(add_transpose<T>)(pointer<T>(w) + b * n * n, n, first, last);
    });
  });
}

}  // namespace kdops::relation
