// What all SVD kernels share: range scaling, the Jacobi rotation and its stopping rule, canonical
// signs. A matrix is oriented first: B (length x p) is A if it is tall and its transpose if it is
// wide, p = min(m, n), so that every kernel is written for tall matrices. T is float or double.
#pragma once

#include <limits>

#include "common/gpu/lane.cuh"
#include "common/shared/power_of_two.h"
#include "svd/shared/rotation.h"
#include "svd/shared/sign.h"

namespace kdops::svd::gpu {

template <class T>
inline constexpr T kLargestFinite = std::numeric_limits<T>::max();
template <class T>
inline constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

// x * up is about 1 for the largest entry; up * down == 1, both are powers of two.
template <class T>
struct Scale {
  T up, down;
};
template <class T>
KDOPS_DEVICE Scale<T> power_of_two_scale(T largest) {
  const int e = scale_exponent(largest);
  return {power_of_two(T(), -e), power_of_two(T(), e)};
}

// Entries are brought to about 2^16 on top, so that products of four tiny norms stay normal
// numbers in single precision while the largest stay far from overflow.
template <class T>
inline constexpr T kBoost = T(65536);

// ---- one-sided Jacobi ------------------------------------------------------------------------

// When two columns count as orthogonal, and when a column counts as zero.
template <class T>
struct JacobiLimits {
  T tolerance_squared;  // of the cosine
  T settled_squared;    // cosines and sines below: what this sweep leaves is within tolerance
  T floor_squared;      // of a column's norm: noise far below eps * largest entry
};
template <class T>
KDOPS_DEVICE JacobiLimits<T> jacobi_limits(int p, T largest) {
  const T size = max(T(p), T(8)), floor = largest * kEpsilon<T> / 16;
  return {kEpsilon<T> * kEpsilon<T> * size, kEpsilon<T> / 4, floor * floor};
}

// Columns (a, b) become (x a + y b, x b - y a), orthogonal. They keep their places: trading them for
// the longer one to come first costs a sweep more, since a column then misses some of its partners.
template <class T>
struct Rotation {
  T x, y, aa, bb;  // aa, bb: the new squared norms
  bool turns;      // not the identity
  bool again;      // too large for the sweep to have been the last one
};
template <class T>
KDOPS_DEVICE Rotation<T> jacobi_rotation(T aa, T bb, T ab, const JacobiLimits<T>& limits) {
  const T product = aa * bb, square = ab * ab;
  const bool turns =
      square > limits.tolerance_squared * product && min(aa, bb) > limits.floor_squared;
  // Of twice the angle: cosine |half| / root, sine |ab| / root. Two roots, no division, and nothing
  // cancels where the angle is small.
  const T half = T(0.5) * (bb - aa), inverse = rsqrt(fma(half, half, square));
  const T cosine_squared = fma(T(0.5), abs(half) * inverse, T(0.5));
  const T inverse_cosine = rsqrt(cosine_squared);
  const T half_sine = (half < T(0) ? -ab : ab) * (T(0.5) * inverse);
  const T t = turns ? half_sine * (inverse_cosine * inverse_cosine) : T(0);
  T c = cosine_squared * inverse_cosine, s = half_sine * inverse_cosine;
  const T unit = fma(T(-0.5), fma(c, c, s * s), T(1.5));  // no drift over the sweeps
  c = turns ? c * unit : T(1), s = turns ? s * unit : T(0);
  const bool again =
      turns && (square > limits.settled_squared * product || s * s > limits.settled_squared);
  return {c, -s, max(fma(-t, ab, aa), T(0)), max(fma(t, ab, bb), T(0)), turns, again};
}

inline constexpr int kMaxSweeps = 30;  // 6 to 10 happen; the bound only ends a hopeless case

// ---- canonical signs -------------------------------------------------------------------------

// The canonical sign of v (`count` entries, `stride` apart), found by a whole warp.
template <class T>
KDOPS_DEVICE T canonical_sign(const T* v, int64_t count, int64_t stride) {
  T largest = -kLargestFinite<T>, smallest = kLargestFinite<T>;
  for (int64_t i = lane_id(); i < count; i += kWarp) {
    largest = max(largest, v[i * stride]);
    smallest = min(smallest, v[i * stride]);
  }
  largest = warp_max(largest);
  smallest = warp_min(smallest);
  const T sign = sign_of_extremes(largest, smallest);
  if (sign != T(0)) return sign;
  const T almost = deciding_size(largest, smallest);
  for (int64_t base = 0; base < count; base += kWarp) {
    const int64_t i = base + lane_id();
    const T value = i < count ? v[i * stride] : T(0);
    const unsigned found = warp_ballot(i < count && abs(value) >= almost);
    if (found == 0) continue;
    int first = 0;
    while (!(found >> first & 1)) ++first;
    return shuffle(value, first) < T(0) ? T(-1) : T(1);
  }
  return T(1);
}

// Gives v its canonical sign, by a whole warp, and returns what it was multiplied by.
template <class T>
KDOPS_DEVICE T make_canonical(T* v, int64_t count) {
  const T sign = canonical_sign(v, count, 1);
  for (int64_t i = lane_id(); sign < T(0) && i < count; i += kWarp) v[i] = -v[i];
  return sign;
}

// ---- arguments -------------------------------------------------------------------------------

// A [count, m, n], matrices row by row or column by column. B, length x p, is the matrix with its
// long side first: A, or its transpose where A is wide.
struct BatchShape {
  int64_t count = 0, m = 0, n = 0;
  bool column_major = false;

  KDOPS_DEVICE bool wide() const { return m < n; }
  // B in memory: `length` rows of p numbers, not p rows of `length` numbers
  KDOPS_DEVICE bool long_rows() const { return wide() == column_major; }
  KDOPS_DEVICE int p() const { return static_cast<int>(min(m, n)); }
  KDOPS_DEVICE int64_t length() const { return max(m, n); }
};

// U [count, m, p] or null, S [count, p], Vh [count, p, n] or null (values only). symmetric (eigh):
// m = n, A's lower triangle is read, S receives the eigenvalues in ascending order and U the
// eigenvectors as columns, Vh is not used.
template <class T>
struct SvdArguments : BatchShape {
  const T* A = nullptr;
  T *U = nullptr, *S = nullptr, *Vh = nullptr;
  bool canonical = false, symmetric = false;
  bool only_refused = false;  // matrices that svd_gram_kernel has marked, the others are done
};

// A mark that no result is: singular values are not negative.
template <class T>
KDOPS_DEVICE void mark_refused(const SvdArguments<T>& args) {
  args.S[blockIdx.x * args.p()] = T(-1);
}
template <class T>
KDOPS_DEVICE bool was_refused(const SvdArguments<T>& args) {
  return args.S[blockIdx.x * args.p()] < T(0);
}

// Entry (row, column) of the oriented matrix `index`.
template <class T>
KDOPS_DEVICE T load_oriented(const SvdArguments<T>& args, int64_t index, int64_t row, int column) {
  const bool by_rows = args.symmetric ? row >= column : args.long_rows();
  const int64_t at = by_rows ? row * args.p() + column : column * args.length() + row;
  return args.A[index * args.m * args.n + at];
}

}  // namespace kdops::svd::gpu
