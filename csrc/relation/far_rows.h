// CPU glue of far.h, for both ops of angles.
#pragma once

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
    parallel_for(pairs.n, 16.0 * pairs.n * x.size(1), KDOPS_BEST(far_pairs), rows_of<double>(x),
                 scale, pairs);
  }
};

// factor * dL/dx from the weights of angle_weights, which become their Laplacian. Never by a product:
// centred, rows that are near lose each other.
inline Tensor far_gradient(const FarRows& rows, double factor, Tensor& w) {
  const int64_t n = rows.pairs.n;
  const SplitScale<double> scale(rows.scale);
  to_laplacians<double>(w, 2 * factor * scale.inside);
  const std::vector<uint8_t> lossy(n, 1);
  const Rows<double> given = rows_of<double>(rows.x);
  Tensor grad = empty_for(rows.x, {n, rows.x.size(1)});
  finish<double>({lossy.data(), pointer<double>(w), given, given, rows.scale, -1.0, scale.after,
                  pointer<double>(grad)});
  return grad;
}

}  // namespace kdops::relation
