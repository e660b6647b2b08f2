// What rkd_angle knows of pairs of rows on CUDA, and the cosine of two of them. With r = 1/d, a = d/2:
// cos_ijk = r_ik (a_ij - 2 r_ij a_jk^2) + r_ij a_ik (angle.h).
//
// Rows so near to each other, beside far ones, that T says too little of the directions between them
// are computed in double, from squared distances of two parts (long_square.h). The host does not
// wait to learn of it: rkd_angle_pairs_kernel finds out (`near`), and of every later launch the
// blocks do one step of the one way or of the other (angle_kernels.cuh).
#pragma once

#include "relation/long_square.h"
#include "relation/relation_kernels.cuh"

namespace kdops::relation::gpu {

// A pair seen from an anchor: 1/d and d/2 of student and teacher.
template <class T>
struct alignas(sizeof(T) == 4 ? 16 : 8) AnglePair {
  using Real = T;
  static constexpr bool kFar = false;
  T inverse_s, half_s, inverse_t, half_t;
};
// The same among rows that lie far apart: 1/d and d^2.
struct FarPair {
  using Real = double;
  static constexpr bool kFar = true;
  double inverse_s, inverse_t;
  LongSquare<double> square_s, square_t;
};

// Block (i, y): side y of the pairs (i, j) in `pairs` (n, n). Sets near (all threads that do write
// the same) where the losses need FarPair.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    rkd_angle_pairs_kernel(Sides<T> sides, AnglePair<T>* __restrict__ pairs,
                           int* __restrict__ near) {
  const Side<T> side = sides.at(blockIdx.y);
  const int i = static_cast<int>(blockIdx.x), n = side.n;
  const int64_t first = static_cast<int64_t>(i) * n, square = static_cast<int64_t>(n) * n;
  const auto norm_of = [&](int j) { return sum_of_parts(side.norms + j, n, sides.splits); };
  T longest = 0;
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads) {
    const T norm = norm_of(j);
    if (norm - norm == T(0)) longest = max(longest, norm);
  }
  const T far_square = kFarPart<T> * block_max<kRowThreads>(longest);
  const T norm = norm_of(i);
  bool found = false;
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kRowThreads) {
    const T product = sum_of_parts(side.gram + first + j, square, sides.splits);
    const T distance =
        pair_distance(side, RowPair<T>{i, j, norm, norm_of(j), product}, far_square, found);
    const T inverse = inverse_distance(distance);
    AnglePair<T>& pair = pairs[first + j];
    if (blockIdx.y != 0)
      pair.inverse_t = inverse, pair.half_t = distance / 2;
    else
      pair.inverse_s = inverse, pair.half_s = distance / 2;
  }
  if (found) *near = 1;
}

// 1 / sqrt(square), or 0 where it is 0; never infinite.
KDOPS_DEVICE double inverse_root(double square) { return square == 0 ? 0 : sqrt(square) / square; }

// The pairs in double, from the differences of the given rows; all blocks share the rows.
template <class T>
KDOPS_DEVICE void angle_far_pairs(const Sides<T>& sides, FarPair* pairs) {
  const int n = sides.student.n;
  for (int64_t i = blockIdx.x; i < n; i += gridDim.x) {
    const auto square = [&](const Side<T>& rows, int64_t j) {
      return long_square(rows.row(i), rows.row(j), rows.d, *rows.scale);
    };
    for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
      const LongSquare<double> s = square(sides.student, j), t = square(sides.teacher, j);
      pairs[i * n + j] = {inverse_root(s.square), inverse_root(t.square), s, t};
    }
  }
}

// What a cosine needs of its opposite side.
template <class T>
struct HalfOfSquares {
  T s, t;
};
template <class T>
KDOPS_DEVICE HalfOfSquares<T> opposite_of(const AnglePair<T>& side) {
  return {2 * side.half_s * side.half_s, 2 * side.half_t * side.half_t};
}
struct Squares {
  LongSquare<double> s, t;
};
KDOPS_DEVICE Squares opposite_of(const FarPair& side) { return {side.square_s, side.square_t}; }

// cos_S and cos_S - cos_T at the anchor, p = pair (i, j), q = pair (i, k).
template <class T>
struct AngleTerm {
  T cosine, slope, difference;
};
template <class T>
KDOPS_DEVICE AngleTerm<T> angle_term(const AnglePair<T>& p, const AnglePair<T>& q,
                                     const HalfOfSquares<T>& opposite) {
  const T inner = fma(-p.inverse_s, opposite.s, p.half_s);
  const T cosine = fma(q.inverse_s, inner, p.inverse_s * q.half_s);
  const T inner_t = fma(-p.inverse_t, opposite.t, p.half_t);
  const T difference = fma(-p.inverse_t, q.half_t, fma(-q.inverse_t, inner_t, cosine));
  return {cosine, clamp_to_one(difference), difference};
}
KDOPS_DEVICE AngleTerm<double> angle_term(const FarPair& p, const FarPair& q,
                                          const Squares& opposite) {
  const double dot_s = twice_dot(p.square_s, q.square_s, opposite.s) / 2;
  const double dot_t = twice_dot(p.square_t, q.square_t, opposite.t) / 2;
  const double cosine = dot_s * p.inverse_s * q.inverse_s;
  const double difference = cosine - dot_t * p.inverse_t * q.inverse_t;
  return {cosine, clamp_to_one(difference), difference};
}

}  // namespace kdops::relation::gpu
