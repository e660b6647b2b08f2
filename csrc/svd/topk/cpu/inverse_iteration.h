// Eigenvectors of a symmetric tridiagonal matrix for given eigenvalues, on the CPU.
//
// V is Pack<T> (a lane is a matrix) or T; the shifted solves are those of shared/. Every vector is
// kept orthogonal to the earlier ones: that is a rounding error's work for separated eigenvalues
// and is what makes a repeated one give a basis.
#pragma once

#include "svd/shared/tridiagonal_solve.h"

namespace kdops::svd::KDOPS_ISA {

template <class V>
struct TridiagonalBand {
  const V *d, *e;
  V diagonal(int i) const { return d[i]; }
  V coupling(int i) const { return e[i]; }
};

template <class V>
struct Entries {
  V* x;
  V get(int i) const { return x[i]; }
  void set(int i, V value) const { x[i] = value; }
};

// Where the factors of one shift lie; `swapped` is 1 for a row that came up, else 0.
template <class V>
struct ShiftedFactor {
  V *inverse, *right, *right2, *multiplier, *swapped;
  static constexpr int kArrays = 5;

  ShiftedFactor(V* work, int p)
      : inverse(work),
        right(work + p),
        right2(work + 2 * p),
        multiplier(work + 3 * p),
        swapped(work + 4 * p) {}
  void keep(int i, V pivot_inverse, V next, V next2, V factor, Mask<V> swap) const {
    using T = Scalar<V>;
    inverse[i] = pivot_inverse, right[i] = next, right2[i] = next2;
    multiplier[i] = factor, swapped[i] = select(swap, V(T(1)), V(T(0)));
  }
  FactorRow<V> row(int i) const {
    return {inverse[i], right[i], right2[i], multiplier[i], swapped[i] > V(Scalar<V>(0))};
  }
};

template <class V>
inline V dot(const V* a, const V* b, int length) {
  V even(Scalar<V>(0)), odd(Scalar<V>(0));
  int i = 0;
  for (; i + 1 < length; i += 2) {
    even = fma(a[i], b[i], even);
    odd = fma(a[i + 1], b[i + 1], odd);
  }
  if (i < length) even = fma(a[i], b[i], even);
  return even + odd;
}

// x -> x - (qᵀx) q for each of `count` orthonormal vectors q, `p` apart.
template <class V>
inline void remove_components(const V* q, int count, int p, V* x) {
  for (int c = 0; c < count; ++c) {
    const V minus = -dot(q + c * p, x, p);
    for (int i = 0; i < p; ++i) x[i] = fma(minus, q[c * p + i], x[i]);
  }
}

// Scale first by the largest entry, so that squares neither overflow nor vanish.
template <class V>
inline void normalise(V* x, int p) {
  using T = Scalar<V>;
  V largest(T(0));
  for (int i = 0; i < p; ++i) largest = max(largest, abs(x[i]));
  const V scale = V(T(1)) / select(largest > V(T(0)), largest, V(T(1)));
  V square(T(0));
  for (int i = 0; i < p; ++i) {
    x[i] = x[i] * scale;
    square = fma(x[i], x[i], square);
  }
  const V inverse = V(T(1)) / sqrt(select(square > V(T(0)), square, V(T(1))));
  for (int i = 0; i < p; ++i) x[i] = x[i] * inverse;
}

// z: k vectors of length p, orthonormal. work: 5 p packs.
template <class V>
void tridiagonal_vectors(const V* d, const V* e, int p, int k, const V* lambda, V* z, V* work) {
  using T = Scalar<V>;
  const ShiftedFactor<V> factor(work, p);
  // A smaller pivot is rounding, and this size is what inverse iteration wants.
  const V least = V(std::numeric_limits<T>::epsilon()) * lambda[0];
  uint32_t random = 12345;
  for (int c = 0; c < k; ++c) {
    V* x = z + c * p;
    // A fixed start, different for every vector: an eigenspace of T = I is then spanned.
    for (int i = 0; i < p; ++i) {
      random = random * 1664525u + 1013904223u;
      x[i] = V(T(random >> 8) * T(1.0 / (1 << 24)) + T(0.25)) * V(T((random >> 7) & 1 ? 1 : -1));
    }
    factor_shifted(TridiagonalBand<V>{d, e}, p, lambda[c], least, factor);
    for (int iteration = 0; iteration < 3; ++iteration) {
      solve_shifted<V>(factor, p, Entries<V>{x});
      normalise(x, p);
      remove_components(z, c, p, x);
      if (iteration == 2) {
        normalise(x, p);
        remove_components(z, c, p, x);
      }
      normalise(x, p);
    }
  }
}

// |T x - (xᵀT x) x|, the check on every vector that leaves this file; quotient gets xᵀT x.
template <class V>
inline V tridiagonal_residual(const V* d, const V* e, int p, const V* x, V& quotient, V* work) {
  using T = Scalar<V>;
  for (int i = 0; i < p; ++i) {
    V y = d[i] * x[i];
    if (i > 0) y = fma(e[i - 1], x[i - 1], y);
    if (i + 1 < p) y = fma(e[i], x[i + 1], y);
    work[i] = y;
  }
  quotient = dot(work, x, p);
  V square(T(0));
  for (int i = 0; i < p; ++i) {
    const V r = work[i] - quotient * x[i];
    square = fma(r, r, square);
  }
  return sqrt(square);
}

}  // namespace kdops::svd::KDOPS_ISA
