// Eigenvectors of a symmetric tridiagonal matrix for given eigenvalues, and shifted solves.
//
// V is Pack<T> (a lane is a matrix) or T. T - x I is factored with partial pivoting (the pivoting
// is a blend, so lanes may differ). Every vector is kept orthogonal to the earlier ones: that is a
// rounding error's work for separated eigenvalues and is what makes a repeated one give a basis.
#pragma once

#include "common/simd/pack.h"

namespace kdops::svd::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

// P (T - x I) = L U: U has the diagonal 1 / inverse and two further diagonals.
template <class V>
struct ShiftedFactor {
  V* inverse;
  V* upper;
  V* upper2;
  V* multiplier;
  V* swapped;  // 1 where rows i and i + 1 were exchanged, else 0
  static constexpr int kArrays = 5;

  ShiftedFactor(V* work, int p)
      : inverse(work),
        upper(work + p),
        upper2(work + 2 * p),
        multiplier(work + 3 * p),
        swapped(work + 4 * p) {}
};

template <class V>
inline void factor_shifted(const V* d, const V* e, int p, V shift, const ShiftedFactor<V>& f) {
  using T = Scalar<V>;
  const V zero(T(0)), one(T(1));
  // The matrix has norm ~ 1: a smaller pivot is rounding, and eps is what inverse iteration wants.
  const V floor(std::numeric_limits<T>::epsilon());
  V diagonal = d[0] - shift, super = p > 1 ? e[0] : zero;
  for (int i = 0; i + 1 < p; ++i) {
    const V below = e[i], next = d[i + 1] - shift, next_super = i + 2 < p ? e[i + 1] : zero;
    const Mask<V> swap = abs(below) > abs(diagonal);
    V pivot = select(swap, below, diagonal);
    const V other = select(swap, diagonal, below);
    pivot = select(abs(pivot) < floor, copysign(floor, pivot), pivot);
    const V inverse = one / pivot;
    const V multiplier = other * inverse;
    const V first = select(swap, next, super), second = select(swap, next_super, zero);
    f.inverse[i] = inverse, f.upper[i] = first, f.upper2[i] = second;
    f.multiplier[i] = multiplier, f.swapped[i] = select(swap, one, zero);
    diagonal = select(swap, super, next) - multiplier * first;
    super = select(swap, zero, next_super) - multiplier * second;
  }
  f.inverse[p - 1] = one / select(abs(diagonal) < floor, copysign(floor, diagonal), diagonal);
  f.upper[p - 1] = f.upper2[p - 1] = zero;
}

// x -> (T - shift I)^-1 x.
template <class V>
inline void solve_shifted(const ShiftedFactor<V>& f, int p, V* x) {
  using T = Scalar<V>;
  const V zero(T(0));
  V current = x[0];
  for (int i = 0; i + 1 < p; ++i) {
    const Mask<V> swap = f.swapped[i] > zero;
    const V next = x[i + 1];
    x[i] = select(swap, next, current);
    current = select(swap, current, next) - f.multiplier[i] * x[i];
  }
  V after = current * f.inverse[p - 1], after2 = zero;
  x[p - 1] = after;
  for (int i = p - 2; i >= 0; --i) {
    const V value = (x[i] - f.upper[i] * after - f.upper2[i] * after2) * f.inverse[i];
    x[i] = value;
    after2 = after, after = value;
  }
}

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
  uint32_t random = 12345;
  for (int c = 0; c < k; ++c) {
    V* x = z + c * p;
    // A fixed start, different for every vector: an eigenspace of T = I is then spanned.
    for (int i = 0; i < p; ++i) {
      random = random * 1664525u + 1013904223u;
      x[i] = V(T(random >> 8) * T(1.0 / (1 << 24)) + T(0.25)) * V(T((random >> 7) & 1 ? 1 : -1));
    }
    factor_shifted(d, e, p, lambda[c], factor);
    for (int iteration = 0; iteration < 3; ++iteration) {
      solve_shifted(factor, p, x);
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
