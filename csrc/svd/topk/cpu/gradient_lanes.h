// Gradient of the top-k SVD, the lanes' part: everything of size k x k and k x p.
//
// Named for the small side (P, k x p rows) and the long side (Q), so that tall and wide are one
// case: B = Q diag(s) Pᵀ + rest, B = A (tall) or Aᵀ (wide). With X = QᵀgQ, Y = PᵀgP, N = BᵀgQ,
// inv() the reciprocal under the degenerate policy, and everything taken of f B, whose norm is
// about one:
//     core = skew(X + Y) inv(s_j - s_i) + skew(X - Y) inv(s_j + s_i) + diag(gS)
//     rhs_i = (I - P Pᵀ)(gP_i + N_i inv(s_i))
//     x_i = Σ_{j > k} v_j v_jᵀ rhs_i inv(s_i - s_j) inv(s_i + s_j) = (s_i² - G)⁺ rhs_i
//     gB = (B x + Q core + (gQ - Q X) inv(s)) Pᵀ + Q diag(s) xᵀ
// x comes from tridiagonal solves between two sweeps of the saved reflectors; what a solution picks
// up along P, where s_i² - G is singular, is kept small (solve_complement) and projected out.
// gradient.h does the long side.
#pragma once

#include "common/simd/pack_twin.h"
#include "svd/shared/policy.h"
#include "svd/topk/cpu/few_vectors.h"
#include "svd/topk/cpu/inverse_iteration.h"
#include "svd/topk/cpu/layout.h"

namespace kdops::svd::KDOPS_ISA {

// One group's numbers, lane by lane; the order is that of the row that a matrix contributes.
template <class V>
struct TopkCotangents {
  int p, k;
  V *P, *gP, *N, *X, *sigma, *gS, *f, *doubt;
  static int64_t size(int p, int k) { return 3 * k * p + k * k + 2 * k + 2; }
  TopkCotangents(V* base, int p_, int k_)
      : p(p_),
        k(k_),
        P(base),
        gP(P + k * p),
        N(gP + k * p),
        X(N + k * p),
        sigma(X + k * k),
        gS(sigma + k),
        f(gS + k),
        doubt(f + 1) {}
};

// core (k x k), in the units of A. work: k * k packs.
template <class V>
void core_matrix(const TopkCotangents<V>& g, const PolicyInverse<V>& inverse, V* core, V* Y) {
  using T = Scalar<V>;
  const int p = g.p, k = g.k;
  for (int i = 0; i < k; ++i)
    for (int j = 0; j < k; ++j) Y[i * k + j] = dot(g.P + i * p, g.gP + j * p, p);
  const V half = V(T(0.5)) * g.f[0];
  for (int i = 0; i < k; ++i) {
    core[i * k + i] = g.gS[i];
    for (int j = i + 1; j < k; ++j) {
      const V a = half * (g.X[i * k + j] - g.X[j * k + i]);
      const V b = half * (Y[i * k + j] - Y[j * k + i]);
      const CorePair<V> pair = core_pair(a, b, g.sigma[i], g.sigma[j], inverse);
      core[i * k + j] = pair.here, core[j * k + i] = pair.across;
    }
  }
}

template <class V>
void right_hand_sides(const TopkCotangents<V>& g, const PolicyInverse<V>& inverse, V* rhs) {
  const int p = g.p, k = g.k;
  for (int i = 0; i < k; ++i) {
    const V weight = inverse(g.sigma[i]);  // not f / s, which may leave the range where N is zero
    for (int q = 0; q < p; ++q)
      rhs[i * p + q] = fma(weight, g.f[0] * g.N[i * p + q], g.gP[i * p + q]);
    remove_components(g.P, k, p, rhs + i * p);
  }
}

// Two vectors of a matrix per lane, and its band for both: one hides the other's latency.
template <class V>
struct TwinEntries {
  V *first, *second;
  Twin<V> get(int i) const { return {first[i], second[i]}; }
  void set(int i, Twin<V> value) const { first[i] = value.low, second[i] = value.high; }
};
template <class V>
struct TwinBand {
  const V *d, *e;
  Twin<V> diagonal(int i) const { return {d[i], d[i]}; }
  Twin<V> coupling(int i) const { return {e[i], e[i]}; }
};

// work: kResolveArrays p numbers of type V.
inline constexpr int kResolveArrays = ShiftedFactor<float>::kArrays + 1;
template <class V, class Band, class Vector>
void resolve_shifted(const Band& t, int p, V shift, V offset, V least, const Vector& x, V* work) {
  const ShiftedFactor<V> factor(work, p);
  factor_shifted(t, p, shift, least, factor);
  solve_complement<V>(factor, p, offset, x, Entries<V>{work + ShiftedFactor<V>::kArrays * p});
}

// x (k x p; rhs on entry) <- (s_i² - G)⁺ x_i on the complement of P.
// work: 2 kResolveArrays p packs.
template <class V>
void resolve_complement(const TopkCotangents<V>& g, const Tridiagonal<V>& t, V* x, V* work) {
  using T = Scalar<V>;
  const int p = g.p, k = g.k;
  const auto square = [&](int i) { return g.sigma[i] * g.sigma[i]; };
  const V distance = safe_distance(g.doubt[0], square(0));
  const V least = V(std::numeric_limits<T>::epsilon()) * square(0);
  apply_q(t, x, k, true);
  int i = 0;
  for (; i + 1 < k; i += 2) {
    const Twin<V> own(square(i), square(i + 1));
    const Twin<V> shift(clear_shift(square, i, distance), clear_shift(square, i + 1, distance));
    resolve_shifted(TwinBand<V>{t.d, t.e}, p, shift, shift - own, Twin<V>(least, least),
                    TwinEntries<V>{x + i * p, x + (i + 1) * p}, reinterpret_cast<Twin<V>*>(work));
  }
  if (i < k) {
    const V shift = clear_shift(square, i, distance);
    resolve_shifted(TridiagonalBand<V>{t.d, t.e}, p, shift, shift - square(i), least,
                    Entries<V>{x + i * p}, work);
  }
  apply_q(t, x, k, false);
  for (i = 0; i < k; ++i) remove_components(g.P, k, p, x + i * p);
}

// The solutions x into the units of A: y = f x, which takes the place of x, and r = f s x. Without
// Q (have_long false) r = y, and Q's part of gB moves into y. core becomes core - X inv(s), weights
// (k) f inv(s).
template <class V>
void to_units_of_A(const TopkCotangents<V>& g, const PolicyInverse<V>& inverse, bool have_long,
                   V* core, V* weights, V* x, V* r) {
  using T = Scalar<V>;
  const int p = g.p, k = g.k;
  for (int j = 0; j < k; ++j) {
    const V weight = inverse(g.sigma[j]);
    weights[j] = g.f[0] * weight;
    for (int i = 0; i < k; ++i) core[i * k + j] -= g.f[0] * g.X[i * k + j] * weight;
  }
  for (int j = 0; j < k; ++j) {
    const V s = have_long ? g.sigma[j] : V(T(1));
    for (int q = 0; q < p; ++q) {
      x[j * p + q] = x[j * p + q] * g.f[0];
      r[j * p + q] = s * x[j * p + q];
    }
    for (int i = 0; !have_long && i < k; ++i) {
      const V weight = core[i * k + j] * inverse(g.sigma[i]);
      for (int q = 0; q < p; ++q) x[j * p + q] = fma(weight, g.P[i * p + q], x[j * p + q]);
    }
  }
}

// x_i for one s_i = own of one matrix, from `count` values and vectors outside the k.
template <class T>
void resolve_dense(T own, const T* sigma, const T* vectors, int p, int count,
                   const PolicyInverse<T>& inverse, const T* rhs, T* x) {
  for (int q = 0; q < p; ++q) x[q] = T(0);
  for (int j = 0; j < count; ++j) {
    const T* v = vectors + int64_t(j) * p;
    T along(0);
    for (int q = 0; q < p; ++q) along += v[q] * rhs[q];
    along *= inverse.of_squares(own, sigma[j]);
    for (int q = 0; q < p; ++q) x[q] += along * v[q];
  }
}

}  // namespace kdops::svd::KDOPS_ISA
