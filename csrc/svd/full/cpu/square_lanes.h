// SquareBatch for small matrices: one matrix per lane from the first reflector to the last
// rotation.
#pragma once

#include "svd/full/cpu/square.h"

namespace kdops::svd::KDOPS_ISA {

// Interleaves, scales, and replaces matrices with NaN or Inf by zero.
template <class T>
void SquareBatch<T>::load_lanes(const T* a, int64_t apart, int lanes, bool lower, V* w, int first) {
  gather_lanes(a, apart, lanes, n * n, w);
  if (lower)
    for (int i = 0; i < n; ++i)
      for (int j = i + 1; j < n; ++j) w[i * n + j] = w[j * n + i];
  const Magnitude<V> size = magnitude(w, n * n);
  const V factor = V(T(1)) / size.power;
  for (int i = 0; i < n * n; ++i) w[i] = select(size.finite, factor * w[i], V(T(0)));
  const V finite = select(size.finite, V(T(1)), V(T(0)));
  for (int l = 0; l < lanes; ++l) {
    scale[first + l] = size.power.lane(l);
    this->finite[first + l] = finite.lane(l) == T(1);
  }
}

// The canonical sign of a row of an interleaved array (shared/sign.h), lane by lane.
template <class V>
V lanes_canonical_sign(const V* row, int n) {
  using T = Scalar<V>;
  const V zero(T(0)), one(T(1));
  V largest = row[0], smallest = row[0];
  for (int i = 1; i < n; ++i) {
    largest = max(row[i], largest);
    smallest = min(row[i], smallest);
  }
  const V sign = sign_of_extremes(largest, smallest), almost = deciding_size(largest, smallest);
  const Mask<V> tie = sign == zero;
  if (!any(tie)) return sign;
  V first = zero;
  for (int i = n - 1; i >= 0; --i) first = select(abs(row[i]) >= almost, row[i], first);
  return select(tie, select(first < zero, -one, one), sign);
}

// Magnitudes into d, canonical signs into the vectors; no negative zeros, whose sign would depend
// on how long the neighbours iterate.
template <class T>
void SquareBatch<T>::choose_lane_signs(V* d, V* ut, V* vt) const {
  const V zero(T(0)), one(T(1));
  for (int j = 0; j < n; ++j) {
    const V sign = canonical_ && want_v_ ? lanes_canonical_sign(vt + j * n, n) : one;
    const V left = multiply_sign(sign, d[j]);
    d[j] = abs(d[j]);
    if (want_v_)
      for (int i = 0; i < n; ++i) vt[j * n + i] = fma(sign, vt[j * n + i], zero);
    if (want_u_)
      for (int i = 0; i < n; ++i) ut[j * n + i] = fma(left, ut[j * n + i], zero);
  }
}

// Swaps values i < j and their vectors in the lanes where d[i] < d[j].
template <class V>
inline void order_pair(V* d, V* ut, V* vt, int n, int i, int j) {
  const auto swap = d[i] < d[j];
  if (!any(swap)) return;
  const auto exchange = [&](V& x, V& y) {
    const V old = x;
    x = select(swap, y, old);
    y = select(swap, old, y);
  };
  exchange(d[i], d[j]);
  for (int k = 0; ut != nullptr && k < n; ++k) exchange(ut[i * n + k], ut[j * n + k]);
  for (int k = 0; vt != nullptr && k < n; ++k) exchange(vt[i * n + k], vt[j * n + k]);
}

// Batcher's odd-even merge sort, descending: the same comparisons in every lane.
template <class V>
void sort_lanes(V* d, V* ut, V* vt, int n) {
  for (int run = 1; run < n; run *= 2)
    for (int step = run; step >= 1; step /= 2)
      for (int start = step % run; start + step < n; start += 2 * step)
        for (int i = start; i < start + step && i + step < n; ++i)
          if (i / (2 * run) == (i + step) / (2 * run)) order_pair(d, ut, vt, n, i, i + step);
}

// Sorted, signed lanes -> the caller's tensors. work: n * n.
template <class T>
void SquareBatch<T>::write_lanes(const V* d, const V* ut, const V* vt, V* work, int lanes,
                                 const Target<T>& target) const {
  V power;
  for (int l = 0; l < kLanes; ++l) power.set_lane(l, l < lanes ? scale[l] : T(0));
  for (int j = 0; j < n; ++j) work[j] = power * d[j];
  scatter_lanes(work, n, lanes, target.s, n);
  if (want_v_) scatter_lanes(vt, n * n, lanes, target.vh, n * n);
  if (!want_u_) return;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) work[i * n + j] = ut[j * n + i];
  scatter_lanes(work, n * n, lanes, target.u, n * n);
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

// tau: 2 n.
template <class T>
void SquareBatch<T>::reduce_lanes(V* w, V* ut, V* vt, V* d, V* e, V* tau) {
  lanes_bidiagonalise(w, n, d, e, tau, tau + n);
  if (want_u_) lanes_form_q(w, tau, n, 0, n, n - 1, ut);
  if (want_v_) lanes_form_q(w, tau + n, n, 1, 1, n - 1, vt);
}

template <class T>
void SquareBatch<T>::sorted_singular(const T* a, int64_t apart, int lanes,
                                     const Target<T>* target) {
  V* w = reinterpret_cast<V*>(work_.get());
  V *ut = w + n * n, *vt = ut + n * n, *d = vt + n * n, *e = d + n;
  load_lanes(a, apart, lanes, false, w);
  reduce_lanes(w, ut, vt, d, e, e + n);
  RotateLanes<V> sink{want_u_ ? ut : nullptr, want_v_ ? vt : nullptr, n};
  bidiagonal_qr(d, e, n, sink);
  choose_lane_signs(d, ut, vt);
  sort_lanes(d, want_u_ ? ut : nullptr, want_v_ ? vt : nullptr, n);
  if (target != nullptr) return write_lanes(d, ut, vt, w, lanes, *target);
  if (want_u_) separate(ut, lanes, u_.get());
  if (want_v_) separate(vt, lanes, v_.get());
  store_values(d, lanes);
}

// The reductions fill L1 with one register of matrices; the iterations run two registers together.
template <class T>
void SquareBatch<T>::lanes_singular(const T* a, int64_t apart, int lanes) {
  using W = Wide<T>;
  constexpr int kRegisters = kMost / kLanes;
  V* w = reinterpret_cast<V*>(work_.get());
  V *ut = w + n * n, *vt = ut + n * n, *d = vt + n * n, *e = d + n, *all_d = e + 3 * n;
  V* all_e = all_d + kRegisters * n;
  T* rest = reinterpret_cast<T*>(all_e + kRegisters * n);
  for (int first = 0; first < lanes; first += kLanes) {
    const int some = std::min(kLanes, lanes - first);
    load_lanes(a + first * apart, apart, some, false, w, first);
    reduce_lanes(w, ut, vt, d, e, e + n);
    if (want_u_) separate(ut, some, u(first));
    if (want_v_) separate(vt, some, v(first));
    for (int i = 0; i < n; ++i) {
      all_d[kRegisters * i + first / kLanes] = d[i];
      all_e[kRegisters * i + first / kLanes] = e[i];
    }
  }
  if (lanes <= kLanes) {
    iterate_singular(d, e, rest, lanes);
    return store_values(d, lanes);
  }
  iterate_singular(reinterpret_cast<W*>(all_d), reinterpret_cast<W*>(all_e), rest, lanes);
  for (int first = 0; first < lanes; first += kLanes) {
    for (int i = 0; i < n; ++i) d[i] = all_d[kRegisters * i + first / kLanes];
    store_values(d, std::min(kLanes, lanes - first), first);
  }
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

}  // namespace kdops::svd::KDOPS_ISA
