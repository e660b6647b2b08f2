// SquareBatch for small matrices: one matrix per lane from the first reflector to the last
// rotation.
#pragma once

#include "svd/square.h"

namespace kdops::KDOPS_ISA {

// Interleaves, scales, and replaces matrices with NaN or Inf by zero.
template <class T>
void SquareBatch<T>::load_lanes(const T* a, int64_t apart, int lanes, bool lower, V* w) {
  gather_lanes(a, apart, lanes, n * n, w);
  if (lower)
    for (int i = 0; i < n; ++i)
      for (int j = i + 1; j < n; ++j) w[i * n + j] = w[j * n + i];
  const Magnitude<V> size = magnitude(w, n * n);
  const V factor = V(T(1)) / size.power;
  for (int i = 0; i < n * n; ++i) w[i] = select(size.finite, factor * w[i], V(T(0)));
  const V finite = select(size.finite, V(T(1)), V(T(0)));
  for (int l = 0; l < lanes; ++l) {
    scale[l] = size.power.lane(l);
    this->finite[l] = finite.lane(l) == T(1);
  }
}

template <class T>
void SquareBatch<T>::lanes_singular(const T* a, int64_t apart, int lanes) {
  V* w = reinterpret_cast<V*>(work_.get());
  V *ut = w + n * n, *vt = ut + n * n, *d = vt + n * n, *e = d + n, *tau_u = e + n,
    *tau_v = tau_u + n;
  load_lanes(a, apart, lanes, false, w);
  lanes_bidiagonalise(w, n, d, e, tau_u, tau_v);
  if (want_u_) lanes_form_q(w, tau_u, n, 0, n, n - 1, ut);
  if (want_v_) lanes_form_q(w, tau_v, n, 1, 1, n - 1, vt);
  RotateLanes<V> sink{want_u_ ? ut : nullptr, want_v_ ? vt : nullptr, n};
  bidiagonal_qr(d, e, n, sink);
  if (want_u_) scatter_lanes(ut, n * n, lanes, u_.get(), n * n);
  if (want_v_) scatter_lanes(vt, n * n, lanes, v_.get(), n * n);
  store_values(d, lanes);
}

template <class T>
void SquareBatch<T>::lanes_symmetric(const T* a, int64_t apart, int lanes) {
  V* w = reinterpret_cast<V*>(work_.get());
  V *vt = w + n * n, *d = vt + n * n, *e = d + n, *tau = e + n, *work = tau + n;
  load_lanes(a, apart, lanes, true, w);
  lanes_tridiagonalise(w, n, d, e, tau, work);
  if (want_v_) lanes_form_q(w, tau, n, 1, n, n - 1, vt);
  RotateLanes<V> sink{nullptr, want_v_ ? vt : nullptr, n};
  tridiagonal_qr(d, e, n, sink);
  if (want_v_) scatter_lanes(vt, n * n, lanes, v_.get(), n * n);
  store_values(d, lanes);
}

}  // namespace kdops::KDOPS_ISA
