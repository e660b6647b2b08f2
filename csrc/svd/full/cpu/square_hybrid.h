// SquareBatch for large orders: reductions and rotations matrix by matrix, recurrences in lanes.
#pragma once

#include "svd/full/cpu/square.h"

namespace kdops::svd::KDOPS_ISA {

// Copies matrix `lane` scaled into padded rows; one with NaN or Inf becomes zero.
template <class T>
void SquareBatch<T>::load_matrix(const T* a, bool lower, int lane, T* w) {
  fill(w, 0, stride * stride, T(0));
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < (lower ? i + 1 : n); ++j) w[i * stride + j] = a[i * n + j];
  if (lower)
    for (int i = 0; i < n; ++i)
      for (int j = i + 1; j < n; ++j) w[i * stride + j] = w[j * stride + i];
  const Magnitude<T> size = matrix_magnitude(w, static_cast<int64_t>(stride) * stride);
  scale[lane] = size.power;
  finite[lane] = size.finite;
  const V factor(T(1) / size.power);
  for (int i = 0; i < stride * stride; i += kLanes)
    (size.finite ? factor * V::load(w + i) : V(T(0))).store(w + i);
}

// QR iterations of all lanes on d and e, their rotations applied to u and v.
template <class T>
template <class W>
void SquareBatch<T>::iterate_singular(W* d, W* e, T* memory, int lanes) {
  if (want_u_ || want_v_) {
    RotateMatrices<W> sink(memory, matrix(), stride, lanes, want_u_ ? u_.get() : nullptr,
                           want_v_ ? v_.get() : nullptr);
    bidiagonal_qr(d, e, n, sink);
    sink.flush();
  } else {
    NoRotations sink;
    bidiagonal_qr(d, e, n, sink);
  }
}

template <class T>
void SquareBatch<T>::iterate_symmetric(V* d, V* e, T* memory, int lanes) {
  if (want_v_) {
    RotateMatrices<V> sink(memory, matrix(), stride, lanes, nullptr, v_.get());
    tridiagonal_qr(d, e, n, sink);
    sink.flush();
  } else {
    NoRotations sink;
    tridiagonal_qr(d, e, n, sink);
  }
}

template <class T>
void SquareBatch<T>::hybrid_singular(const T* a, int64_t apart, int lanes) {
  const int square = stride * stride;
  T *w = work_.get(), *left = w + 2 * square, *right = left + square;
  T* vectors = right + square;
  const BidiagonalForm<T> form{.u = left,
                               .v = right,
                               .tau_u = vectors + 2 * stride,
                               .tau_v = vectors + 3 * stride,
                               .d = vectors,
                               .e = vectors + stride};
  const ReduceWork<T> work(vectors + 4 * stride, stride);
  V* lane_d = reinterpret_cast<V*>(vectors + (4 + ReduceWork<T>::kVectors) * stride);
  V* lane_e = lane_d + n;
  for (int i = 0; i < 2 * n; ++i) lane_d[i] = V(T(0));
  for (int l = 0; l < lanes; ++l) {
    load_matrix(a + l * apart, false, l, w);
    matrix_bidiagonalise(w, n, stride, form, work);
    for (int i = 0; i < n; ++i) {
      lane_d[i].set_lane(l, form.d[i]);
      lane_e[i].set_lane(l, form.e[i]);
    }
    if (want_u_) {
      matrix_form_q(form.u, form.tau_u, n, stride, n - 1, 0, w, work);
      transpose_square(w, n, stride, u(l));
    }
    if (want_v_) {
      matrix_form_q(form.v, form.tau_v, n, stride, n - 1, 1, w, work);
      transpose_square(w, n, stride, v(l));
    }
  }
  iterate_singular(lane_d, lane_e, reinterpret_cast<T*>(lane_e + n), lanes);
  store_values(lane_d, lanes);
}

template <class T>
void SquareBatch<T>::hybrid_symmetric(const T* a, int64_t apart, int lanes) {
  const int square = stride * stride;
  T *w = work_.get(), *reflectors = w + square, *vectors = w + 4 * square;
  T *d = vectors, *e = d + stride, *tau = e + stride;
  const ReduceWork<T> work(vectors + 4 * stride, stride);
  V* lane_d = reinterpret_cast<V*>(vectors + (4 + ReduceWork<T>::kVectors) * stride);
  V* lane_e = lane_d + n;
  for (int i = 0; i < 2 * n; ++i) lane_d[i] = V(T(0));
  for (int l = 0; l < lanes; ++l) {
    load_matrix(a + l * apart, true, l, w);
    matrix_tridiagonalise(w, n, stride, reflectors, d, e, tau, work);
    for (int i = 0; i < n; ++i) {
      lane_d[i].set_lane(l, d[i]);
      lane_e[i].set_lane(l, e[i]);
    }
    if (want_v_) {
      matrix_form_q(reflectors, tau, n, stride, n - 1, 1, w, work);
      transpose_square(w, n, stride, v(l));
    }
  }
  iterate_symmetric(lane_d, lane_e, reinterpret_cast<T*>(lane_e + n), lanes);
  store_values(lane_d, lanes);
}

}  // namespace kdops::svd::KDOPS_ISA
