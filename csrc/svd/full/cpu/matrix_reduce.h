// Reduction of one row-major matrix, held in L1, to bidiagonal or tridiagonal form and back.
//
// An update is delayed until the next reflector is known, so that one pass over the matrix applies
// it and forms the next product (row_passes.h). Reflectors are stored as rows of their own array,
// zero before their one: reflector k at [k * stride].
#pragma once

#include "svd/full/cpu/row_passes.h"
#include "svd/shared/reflector.h"

namespace kdops::svd::KDOPS_ISA {

// Vectors of one reduction, all `stride` long (a multiple of kLanes).
template <class T>
struct ReduceWork {
  T *column, *y, *z, *products;
  static constexpr int kVectors = 4;
  ReduceWork(T* memory, int stride)
      : column(memory), y(memory + stride), z(memory + 2 * stride), products(memory + 3 * stride) {}
};

template <class T>
inline void fill(T* x, int begin, int end, T value) {
  for (int i = begin; i < end; ++i) x[i] = value;
}

// x (zero before `at`) -> the reflector v of (x[at], x[at + 1], ...).
template <class T>
Reflector<T> vector_reflector(T* x, int at, int stride) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  const T alpha = x[at];
  x[at] = T(0);
  const int begin = at / kLanes * kLanes;
  P sum(T(0));
  for (int c = begin; c < stride; c += kLanes) sum = fma(P::load(x + c), P::load(x + c), sum);
  const Reflector<T> h = make_reflector(alpha, reduce_add(sum));
  const P scale(h.scale);
  for (int c = begin; c < stride; c += kLanes) (scale * P::load(x + c)).store(x + c);
  x[at] = T(1);
  return h;
}

// x -= a u + b v from `at` on, zero before it.
template <class T>
inline void subtract_two(T* x, T a, const T* u, T b, const T* v, int at, int stride) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  const int begin = at / kLanes * kLanes;
  const P first(-a), second(-b);
  for (int c = begin; c < stride; c += kLanes)
    fma(first, P::load(u + c), fma(second, P::load(v + c), P::load(x + c))).store(x + c);
  fill(x, 0, at, T(0));
}

template <class T>
inline T vector_dot(const T* x, const T* y, int at, int stride) {
  using P = Pack<T>;
  P sum(T(0));
  for (int c = at / P::kLanes * P::kLanes; c < stride; c += P::kLanes)
    sum = fma(P::load(x + c), P::load(y + c), sum);
  return reduce_add(sum);
}

// A bidiagonal form on its way: n reflectors each to u and v, their factors, diagonals d and e.
template <class T>
struct BidiagonalForm {
  T *u, *v, *tau_u, *tau_v, *d, *e;
};

// a (n rows) = U B VT.
template <class T>
void matrix_bidiagonalise(T* a, int n, int stride, BidiagonalForm<T> to, ReduceWork<T> work) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  fill(work.y, 0, stride, T(0));
  fill(work.z, 0, stride, T(0));
  fill(work.column, 0, stride, T(0));
  for (int i = 0; i < n; ++i) work.column[i] = a[i * stride];
  for (int k = 0; k < n; ++k) {
    // Still to be subtracted from a: old_u yT + z old_vT.
    T *new_u = to.u + k * stride, *new_v = to.v + k * stride;
    const T *old_u = k > 0 ? new_u - stride : work.z, *old_v = k > 0 ? new_v - stride : work.y;
    for (int c = 0; c < stride; c += kLanes) P::load(work.column + c).store(new_u + c);
    subtract_two(new_u, work.y[k], old_u, old_v[k], work.z, k, stride);
    const Reflector<T> left = vector_reflector(new_u, k, stride);
    to.d[k] = left.beta;
    to.tau_u[k] = left.tau;
    if (k == n - 1) {
      fill(new_v, 0, stride, T(0));
      to.e[k] = to.tau_v[k] = T(0);
      break;
    }
    update_rows<true, T>(a, stride, k, n, {old_u, work.y, work.z, old_v, new_u, work.products},
                         k + 1);
    const P tau(left.tau);
    for (int c = 0; c < stride; c += kLanes) {
      const P y = tau * P::load(work.products + c);
      y.store(work.y + c);
      (P::load(a + k * stride + c) - y).store(new_v + c);
    }
    fill(work.y, 0, k + 1, T(0));
    fill(new_v, 0, k + 1, T(0));
    const Reflector<T> right = vector_reflector(new_v, k + 1, stride);
    to.e[k] = right.beta;
    to.tau_v[k] = right.tau;
    row_dots(a, stride, k + 1, n, new_v, work.column, work.z);
    const P along(right.tau * vector_dot(work.y, new_v, k + 1, stride)), scale(right.tau);
    for (int c = 0; c < stride; c += kLanes)
      fma(-along, P::load(new_u + c), scale * P::load(work.z + c)).store(work.z + c);
    fill(work.z, 0, k + 1, T(0));
  }
}

// Symmetric a = Q T QT; v receives n - 1 reflectors (one at index k + 1), d and e the tridiagonal.
template <class T>
void matrix_tridiagonalise(T* a, int n, int stride, T* v, T* d, T* e, T* tau, ReduceWork<T> work) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  fill(work.y, 0, stride, T(0));
  fill(work.z, 0, stride, T(0));
  T* w = work.y;  // still to be subtracted from a: old wT + w oldT
  for (int k = 0; k < n; ++k) {
    T *row = a + k * stride, *now = v + k * stride;
    const T* old = k > 0 ? now - stride : work.z;
    for (int c = 0; c < stride; c += kLanes) P::load(row + c).store(now + c);
    subtract_two(now, old[k], w, w[k], old, k, stride);
    d[k] = now[k];
    now[k] = T(0);
    if (k == n - 1) {
      e[k] = tau[k] = T(0);
      break;
    }
    const Reflector<T> h = vector_reflector(now, k + 1, stride);
    e[k] = h.beta;
    tau[k] = h.tau;
    update_rows<true, T>(a, stride, k + 1, n, {old, w, w, old, now, work.products}, k + 1);
    const T half = T(-0.5) * h.tau * h.tau * vector_dot(work.products, now, k + 1, stride);
    const P scale(h.tau), along(half);
    for (int c = 0; c < stride; c += kLanes)
      fma(along, P::load(now + c), scale * P::load(work.products + c)).store(w + c);
    fill(w, 0, k + 1, T(0));
  }
}

// Q = H_0 H_1 ... (n x n, row-major) from `count` reflectors whose ones are at k + offset.
template <class T>
void matrix_form_q(const T* v, const T* tau, int n, int stride, int count, int offset, T* q,
                   ReduceWork<T> work) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  fill(q, 0, stride * stride, T(0));
  for (int i = 0; i < n; ++i) q[i * stride + i] = T(1);
  fill(work.y, 0, stride, T(0));
  fill(work.z, 0, stride, T(0));
  const T* old = work.z;  // still to be subtracted from q: old yT
  for (int k = count - 1; k >= 0; --k) {
    const T* now = v + k * stride;
    const int at = k + offset;
    update_rows<false, T>(q, stride, at + 1, n, {old, work.y, nullptr, nullptr, now, work.products},
                          at + 1);
    fill(work.products, 0, at + 1, T(0));
    work.products[at] = T(1);
    const P scale(tau[k]);
    for (int c = 0; c < stride; c += kLanes) (scale * P::load(work.products + c)).store(work.y + c);
    old = now;
  }
  update_rows<false, T>(q, stride, offset, n, {old, work.y, nullptr, nullptr, old, work.products},
                        offset);
}

}  // namespace kdops::svd::KDOPS_ISA
