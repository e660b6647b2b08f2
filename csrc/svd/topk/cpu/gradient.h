// Gradient of the top-k SVD: reads the long side, calls the lanes' part, writes gA once.
// Formulas and names: gradient_lanes.h.
#pragma once

#include "svd/topk/cpu/long_side.h"

namespace kdops::svd::KDOPS_ISA {

template <class T>
struct TopkBackward : TopkLongSide<T> {
  static constexpr int kLanes = Pack<T>::kLanes;
  using V = Pack<T>;
  using TopkLongSide<T>::shape;
  using TopkLongSide<T>::row_size;
  using TopkLongSide<T>::route;
  using TopkLongSide<T>::small_vectors;

  bool lorentz;
  Scratch<T> rows, results;
  Scratch<V> lanes;
  TopkCotangents<V> g;
  Tridiagonal<V> t;
  V *core, *x, *y, *work;

  TopkBackward(const TopkShape& of, bool lorentz_policy)
      : TopkLongSide<T>(of),
        lorentz(lorentz_policy),
        rows(kLanes * row_size),
        results(kLanes * this->result_size()),
        lanes(row_size + Tridiagonal<V>::size(of.p) + 2 * (kResolveArrays + of.k) * of.p +
              2 * of.k * of.k + of.k),
        g(lanes.get(), of.p, of.k),
        t(of.p, lanes.get() + row_size),
        core(t.tau + of.p),
        x(core + of.k * of.k + of.k),
        y(x + of.k * of.p),
        work(y + of.k * of.p) {}

  void run(const TopkInputs<T>& in, T* gA, int64_t count);
  void run_group(const TopkInputs<T>& in, T* gA, int matrices);
  void solve_group(const TopkInputs<T>& in, int matrices);
  void solve_dense_lane(const T* saved, int lane);
};

template <class T>
void TopkBackward<T>::run(const TopkInputs<T>& in, T* gA, int64_t count) {
  for (int64_t b = 0; b < count; b += kLanes) {
    const int matrices = static_cast<int>(count - b < kLanes ? count - b : kLanes);
    run_group(from_matrix(in, shape, b), gA + b * shape.m * shape.n, matrices);
  }
}

template <class T>
void TopkBackward<T>::run_group(const TopkInputs<T>& in, T* gA, int matrices) {
  const int64_t size = shape.m * shape.n;
  for (int b = 0; b < matrices; ++b)
    this->fill_row(matrix_of(in, shape, b), rows.get() + b * row_size);
  solve_group(in, matrices);
  for (int b = 0; b < matrices; ++b) {
    const TopkInputs<T> one = matrix_of(in, shape, b);
    T* out = gA + b * size;
    if (route(one.saved) == TopkRoute::not_finite)
      for (int64_t i = 0; i < size; ++i) out[i] = std::numeric_limits<T>::quiet_NaN();
    else
      this->write(one, results.get() + b * this->result_size(), out);
  }
}

template <class T>
void TopkBackward<T>::solve_dense_lane(const T* saved, int lane) {
  const int p = shape.p, k = shape.k;
  const T* sigma = saved + shape.dense_values_at();
  const PolicyInverse<T> inverse(sigma[0], p, lorentz);
  T rhs[kLargestSmallSide], solution[kLargestSmallSide];
  for (int i = 0; i < k; ++i) {
    for (int q = 0; q < p; ++q) rhs[q] = y[i * p + q].lane(lane);
    resolve_dense(sigma[i], sigma + k, small_vectors(saved) + k * p, p, p - k, inverse, rhs,
                  solution);
    for (int q = 0; q < p; ++q) x[i * p + q].set_lane(lane, solution[q]);
  }
}

template <class T>
void TopkBackward<T>::solve_group(const TopkInputs<T>& in, int matrices) {
  const int p = shape.p, k = shape.k;
  const int64_t stride = shape.size();
  gather_lanes(rows.get(), row_size, matrices, static_cast<int>(row_size), lanes.get());
  const PolicyInverse<V> inverse(g.sigma[0], p, lorentz);
  core_matrix(g, inverse, core, work);
  right_hand_sides(g, inverse, x);
  for (int i = 0; i < k * p; ++i) y[i] = x[i];
  if (!shape.always_dense()) {
    gather_lanes(in.saved + shape.diagonal_at(), stride, matrices, p, t.d);
    gather_lanes(in.saved + shape.off_diagonal_at(), stride, matrices, p - 1, t.e);
    gather_lanes(in.saved + shape.tau_at(), stride, matrices, p - 2, t.tau);
    gather_lanes(in.saved + shape.reflectors_at(), stride, matrices, packed_size(p), t.packed);
    resolve_complement(g, t, x, work);
  }
  for (int b = 0; b < matrices; ++b)
    if (route(in.saved + b * stride) == TopkRoute::dense)
      solve_dense_lane(in.saved + b * stride, b);
  to_units_of_A(g, inverse, !shape.tall || in.U != nullptr, core, core + k * k, x, y);
  const int64_t out = this->result_size();
  scatter_lanes(core, k * k + k, matrices, results.get(), out);
  scatter_lanes(x, 2 * k * p, matrices, results.get() + k * k + k, out);
}

}  // namespace kdops::svd::KDOPS_ISA
