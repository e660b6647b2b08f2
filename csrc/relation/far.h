// Angles among rows so far apart that double, too, loses the near ones: the law of cosines on squared
// distances of two parts (long_square.h). Plain loops; rows like these are rare.
#pragma once

#include <algorithm>
#include <limits>

#include "relation/long_square.h"
#include "relation/pairwise.h"

namespace kdops::relation::KDOPS_ISA {

void far_pairs(Rows<double> x, double scale, const FarPairs& out, int64_t begin, int64_t end) {
  constexpr double kLargest = std::numeric_limits<double>::max();
  const int64_t n = out.n;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = i; j < n; ++j) {
      LongSquare<double> d{0, 0};
      if (i != j) d = long_square(x.at(i), x.at(j), x.length, scale);
      const double inverse = d.square == 0 ? 0 : std::min(1 / std::sqrt(d.square), kLargest);
      for (const int64_t place : {i * n + j, j * n + i}) {
        out.square[place] = d.square;
        out.rest[place] = d.rest;
        out.inverse[place] = inverse;
      }
    }
}

// Row i of the pairs: entry k, or the packs from k on.
inline LongSquare<Pack<double>> side(const FarPairs& pairs, int64_t i, int64_t k) {
  return {Pack<double>(pairs.square[i * pairs.n + k]), Pack<double>(pairs.rest[i * pairs.n + k])};
}
inline LongSquare<Pack<double>> sides(const FarPairs& pairs, int64_t i, int64_t k, int lanes) {
  return {load_some(pairs.square + i * pairs.n + k, lanes),
          load_some(pairs.rest + i * pairs.n + k, lanes)};
}

inline Pack<double> far_cosines(const FarPairs& pairs, int64_t i, int64_t j, int64_t k, int lanes) {
  const double* inverse = pairs.inverse + i * pairs.n;
  const Pack<double> dots =
      twice_dot(side(pairs, i, j), sides(pairs, i, k, lanes), sides(pairs, j, k, lanes));
  return dots * Pack<double>(inverse[j] / 2) * load_some(inverse + k, lanes);
}

void far_angles(const FarPairs& pairs, double* out, int64_t begin, int64_t end) {
  const int64_t n = pairs.n;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = 0; j < n; ++j)
      for_packs<double>(n, [&](int64_t k, int lanes) {
        store_some(far_cosines(pairs, i, j, k, lanes), out + (i * n + j) * n + k, lanes);
      });
}

void far_angles_backward(const double* grad, const FarPairs& pairs, double* w, double* m,
                         int64_t begin, int64_t end) {
  const int64_t n = pairs.n;
  for (int64_t i = begin; i < end; ++i)
    anchor_weights(
        n, pairs.inverse + i * n, w + i * n, m,
        [&](int64_t j, int64_t k, int lanes) { return far_cosines(pairs, i, j, k, lanes); },
        [&](int64_t j, int64_t k, int lanes, Pack<double>) {
          return load_some(grad + (i * n + j) * n + k, lanes);
        });
}

double far_angle_loss(const FarPairs& student, const FarPairs& teacher, double* w, double* m,
                      int64_t begin, int64_t end) {
  using P = Pack<double>;
  const int64_t n = student.n;
  P loss(0.0);
  for (int64_t i = begin; i < end; ++i)
    anchor_weights(
        n, student.inverse + i * n, w + i * n, m,
        [&](int64_t j, int64_t k, int lanes) { return far_cosines(student, i, j, k, lanes); },
        [&](int64_t j, int64_t k, int lanes, P cosine) {
          const P difference = cosine - far_cosines(teacher, i, j, k, lanes);
          const P h = max(min(difference, P(1.0)), P(-1.0));
          loss = fma(h, difference - P(0.5) * h, loss);
          return h;
        });
  return reduce_add(loss);
}

}  // namespace kdops::relation::KDOPS_ISA
