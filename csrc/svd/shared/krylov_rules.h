// When a block Krylov basis is good enough, and when its gradient's conjugate gradients are: one
// text for both devices. Why the rules are these: topk/cpu/krylov.h.
#pragma once

#include "common/shared/vocabulary.h"

namespace kdops::svd::KDOPS_WHERE {

// The basis is judged from the first size on, at every further step.
inline constexpr int kFirstJudged = 64, kJudgedStep = 32;
template <class T>
inline constexpr T kMissed = 4 * std::numeric_limits<T>::epsilon();  // of a value: may be missed
// Of what may be missed: what the largest basis may seem to miss, as that falls ever faster.
template <class T>
inline constexpr T kAllowance = T(64);

inline constexpr int krylov_block(int k) { return k <= 4 ? 4 : 8; }

// Pairs of the projected matrix: values, what the basis misses of each, their residuals.
template <class T>
struct RitzPairs {
  const T *values, *missed, *residuals;
  int most;

  // How many of the leading ones are exact to rounding.
  KDOPS_FN int exact() const {
    constexpr T residual = 16 * std::numeric_limits<T>::epsilon();
    int good = 0;
    while (good < most && missed[good] <= kMissed<T> * values[good] &&
           residuals[good] <= residual * values[0])
      ++good;
    return good;
  }
  // The most that is missed of one of the first `count`, relative to its value.
  KDOPS_FN T most_missed(int count) const {
    T found(0);
    for (int i = 0; i < count; ++i) found = max(found, missed[i] / values[i]);
    return found;
  }
  // Of `good` exact ones, those to take: the others must stay clear of the last of the wanted. Where
  // only `within` of these are resolved, they; none where the basis has to grow.
  KDOPS_FN int accepted(int good, int within, int wanted, T clear) const {
    if (good < within) return 0;
    if (within < wanted) return within;
    const int next = good < most ? good : most - 1;
    return values[wanted - 1] - (values[next] + residuals[next]) > clear ? good : 0;
  }
};

// Conjugate gradients on s^2 - G: products at the most, |r| over |b| that is good enough, and
// whether <d, (s^2 - G) d> of a direction d of p numbers with |d|^2 = `square` is positive.
inline constexpr int kMostProducts = 200;
template <class T>
inline constexpr T kSolved = 32 * std::numeric_limits<T>::epsilon();
template <class T>
KDOPS_FN bool is_positive(T curvature, T square, int p) {
  constexpr T eps = std::numeric_limits<T>::epsilon();
  return curvature > 4 * T(p) * eps * eps * square;
}

}  // namespace kdops::svd::KDOPS_WHERE
