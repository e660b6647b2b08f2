// The k largest eigenvalues of symmetric positive semi-definite tridiagonal matrices by Sturm
// counts.
//
// V is Pack<T> (a lane is a matrix) or T. All k brackets are halved together, several shifts in
// flight at once, for a fixed number of steps: no lane waits for, or is changed by, another one.
// The absolute error is that of a backward stable method: a few eps times the norm.
#pragma once

#include "svd/shared/sturm.h"

namespace kdops::svd::KDOPS_ISA {

template <class V>
struct SquaredBand {
  const V *d, *e2;
  V diagonal(int i) const { return d[i]; }
  V square(int i) const { return e2[i]; }
};

// The smallest pivot of a count, for a matrix of trace one.
template <class T>
inline constexpr T kTinyPivot = std::numeric_limits<T>::min() * T(1 << 20);

template <int N, class V>
inline void halve(const SquaredBand<V>& t, int p, int first, V* low, V* high) {
  using T = Scalar<V>;
  V middle[N], count[N];
  for (int c = 0; c < N; ++c) middle[c] = V(T(0.5)) * (low[c] + high[c]);
  count_above<N>(t, p, middle, V(kTinyPivot<T>), count);
  for (int c = 0; c < N; ++c) {
    const Mask<V> above = count[c] > V(T(first + c));
    low[c] = select(above, middle[c], low[c]);
    high[c] = select(above, high[c], middle[c]);
  }
}

// Upper bounds: Gershgorin's, and λ_i <= trace / i because nothing is negative.
template <class V>
inline void eigenvalue_bounds(const V* d, const V* e, int p, int k, V* low, V* high) {
  using T = Scalar<V>;
  V trace(T(0)), bound(T(0)), before(T(0));
  for (int i = 0; i < p; ++i) {
    const V after = i + 1 < p ? abs(e[i]) : V(T(0));
    trace += d[i];
    bound = max(bound, d[i] + before + after);
    before = after;
  }
  constexpr T slack = T(1) + 16 * std::numeric_limits<T>::epsilon();
  for (int i = 0; i < k; ++i) {
    low[i] = V(T(0));
    high[i] = max(min(bound, trace * V(T(1) / T(i + 1))), V(T(0))) * V(slack);
  }
}

// lambda: k, descending. work: p + 2 k packs; its first p - 1 keep e².
template <class V>
void largest_eigenvalues(const V* d, const V* e, int p, int k, V* lambda, V* work) {
  using T = Scalar<V>;
  V *e2 = work, *low = work + p, *high = low + k;
  for (int i = 0; i + 1 < p; ++i) e2[i] = e[i] * e[i];
  eigenvalue_bounds(d, e, p, k, low, high);
  const SquaredBand<V> t{d, e2};
  constexpr int kSteps = std::numeric_limits<T>::digits + 3;
  for (int step = 0; step < kSteps; ++step) {
    int c = 0;
    for (; c + 4 <= k; c += 4) halve<4>(t, p, c, low + c, high + c);
    if (k - c == 3) halve<3>(t, p, c, low + c, high + c);
    if (k - c == 2) halve<2>(t, p, c, low + c, high + c);
    if (k - c == 1) halve<1>(t, p, c, low + c, high + c);
  }
  for (int i = 0; i < k; ++i) lambda[i] = V(T(0.5)) * (low[i] + high[i]);
}

}  // namespace kdops::svd::KDOPS_ISA
