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

// The canonical sign of every row of an interleaved array (signs.h), lane by lane.
template <class V>
V lanes_canonical_sign(const V* row, int n) {
  using T = Scalar<V>;
  const V zero(T(0)), one(T(1)), slack(8 * std::numeric_limits<T>::epsilon());
  V largest = row[0], smallest = row[0];
  for (int i = 1; i < n; ++i) {
    largest = max(row[i], largest);
    smallest = min(row[i], smallest);
  }
  const V sum = largest + smallest;
  const auto tie = abs(sum) <= slack;
  const V sign = select(sum > zero, one, -one);
  if (!any(tie)) return sign;
  const V almost = max(largest, -smallest) - slack;
  V first = zero;
  for (int i = n - 1; i >= 0; --i) first = select(abs(row[i]) >= almost, row[i], first);
  return select(tie, select(first >= zero, one, -one), sign);
}

// Magnitudes into d, canonical signs into the vectors.
template <class T>
void SquareBatch<T>::choose_lane_signs(V* d, V* ut, V* vt) const {
  const V one(T(1));
  for (int j = 0; j < n; ++j) {
    const V sign = canonical_ && want_v_ ? lanes_canonical_sign(vt + j * n, n) : one;
    const V left = multiply_sign(sign, d[j]);
    d[j] = abs(d[j]);
    if (want_v_ && canonical_)
      for (int i = 0; i < n; ++i) vt[j * n + i] = sign * vt[j * n + i];
    if (want_u_)
      for (int i = 0; i < n; ++i) ut[j * n + i] = left * ut[j * n + i];
  }
}

// Interleaved rows -> the rows of each matrix, `stride` apart.
template <class T>
void SquareBatch<T>::separate(const V* vectors, int lanes, T* out) const {
  if (stride == n) {
    scatter_lanes(vectors, n * n, lanes, out, matrix());
  } else {
    for (int j = 0; j < n; ++j)
      scatter_lanes(vectors + j * n, n, lanes, out + j * stride, matrix());
  }
}

template <class T>
void SquareBatch<T>::lanes_singular(const T* a, int64_t apart, int lanes) {
  V* w = reinterpret_cast<V*>(work_.get());
  V *ut = w + n * n, *vt = ut + n * n, *d = vt + n * n, *e = d + n, *tau_u = e + n,
    *tau_v = tau_u + n, *rest = tau_v + n;
  load_lanes(a, apart, lanes, false, w);
  lanes_bidiagonalise(w, n, d, e, tau_u, tau_v);
  if (want_u_) lanes_form_q(w, tau_u, n, 0, n, n - 1, ut);
  if (want_v_) lanes_form_q(w, tau_v, n, 1, 1, n - 1, vt);
  if (n <= kLanesOrder) {
    RotateLanes<V> sink{want_u_ ? ut : nullptr, want_v_ ? vt : nullptr, n};
    bidiagonal_qr(d, e, n, sink);
    choose_lane_signs(d, ut, vt);
  }
  if (want_u_) separate(ut, lanes, u_.get());
  if (want_v_) separate(vt, lanes, v_.get());
  if (n > kLanesOrder) iterate_singular(d, e, reinterpret_cast<T*>(rest), lanes);
  store_values(d, lanes);
}

template <class T>
void SquareBatch<T>::lanes_symmetric(const T* a, int64_t apart, int lanes) {
  V* w = reinterpret_cast<V*>(work_.get());
  V *vt = w + n * n, *d = vt + n * n, *e = d + n, *tau = e + n, *work = tau + n, *rest = work + n;
  load_lanes(a, apart, lanes, true, w);
  lanes_tridiagonalise(w, n, d, e, tau, work);
  if (want_v_) lanes_form_q(w, tau, n, 1, n, n - 1, vt);
  if (n <= kLanesOrder) {
    RotateLanes<V> sink{nullptr, want_v_ ? vt : nullptr, n};
    tridiagonal_qr(d, e, n, sink);
  }
  if (want_v_) separate(vt, lanes, v_.get());
  if (n > kLanesOrder) iterate_symmetric(d, e, reinterpret_cast<T*>(rest), lanes);
  store_values(d, lanes);
}

}  // namespace kdops::KDOPS_ISA
