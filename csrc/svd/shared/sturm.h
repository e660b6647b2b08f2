// Sturm counts of a symmetric tridiagonal matrix, one text for both devices.
#pragma once

#include "svd/shared/policy.h"

namespace kdops::svd::KDOPS_WHERE {

// How many eigenvalues lie above each of N shifts x: the positive pivots of T - x I. t.diagonal(i)
// and t.square(i), the squared coupling of i and i + 1, are T's. Pivots below `tiny` would overflow
// the quotient; a pivot of zero counts as just below.
template <int N, class V, class Band>
KDOPS_FN void count_above(Band t, int p, const V* x, V tiny, V* count) {
  using T = Scalar<V>;
  constexpr int kAtOnce = 4;  // rows that are asked for together
  const V zero(T(0)), one(T(1));
  V q[N];
  for (int c = 0; c < N; ++c) count[c] = zero, q[c] = t.diagonal(0) - x[c];
  const auto step = [&](V next, V square) {
    for (int c = 0; c < N; ++c) {
      count[c] += select(q[c] > zero, one, zero);
      q[c] = select(abs(q[c]) < tiny, -tiny, q[c]);
      q[c] = (next - x[c]) - quotient(square, q[c]);
    }
  };
  int i = 0;
  for (; i + kAtOnce < p; i += kAtOnce) {
    V next[kAtOnce], square[kAtOnce];
    for (int s = 0; s < kAtOnce; ++s) next[s] = t.diagonal(i + s + 1), square[s] = t.square(i + s);
    for (int s = 0; s < kAtOnce; ++s) step(next[s], square[s]);
  }
  for (; i + 1 < p; ++i) step(t.diagonal(i + 1), t.square(i));
  for (int c = 0; c < N; ++c) count[c] += select(q[c] > zero, one, zero);
}

// How far below the k-th eigenvalue the next one must lie, relative to the largest, for the k
// vectors and the gradient to be taken without the others: nearer, only all vectors can tell. Twice
// the 2 tau by which squares of about one differ whose roots count as equal.
template <class T>
KDOPS_FN T separation(int p) {
  return 4 * closeness<T>(p);
}

// The same as a difference, of the eigenvalues of what is left when the largest triples have been
// taken away: s and s' count as equal up to tau s_1 there, too. first: the largest of them; whole:
// s_1 of everything times the k-th singular value, zero if nothing was taken away.
template <class T>
KDOPS_FN T clearance(int p, T first, T whole) {
  return separation<T>(p) * max(first, whole);
}

// What |T x - (x'T x) x| may be for a vector x that inverse iteration has found, relative to the
// largest eigenvalue.
template <class T>
inline constexpr T kLargestResidual = 32 * std::numeric_limits<T>::epsilon();

}  // namespace kdops::svd::KDOPS_WHERE
