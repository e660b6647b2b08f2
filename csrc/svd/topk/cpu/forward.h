// The k largest singular triplets of many small matrices.
//
// Gram matrix of the small side (row-major, a matrix at a time), then a matrix per lane:
// tridiagonalisation, multisection, inverse iteration, back-transformation; then, a matrix at a
// time again, the long side W = A P with Rayleigh-Ritz, which makes it orthonormal although the
// Gram matrix squared the condition. What that cannot resolve goes to the dense route (dense.h).
#pragma once

#include "common/simd/scratch.h"
#include "svd/topk/cpu/dense.h"
#include "svd/topk/cpu/finish.h"
#include "svd/topk/cpu/gram.h"
#include "svd/topk/cpu/inverse_iteration.h"
#include "svd/topk/cpu/layout.h"
#include "svd/topk/cpu/multisection.h"

namespace kdops::svd::KDOPS_ISA {

template <class T>
struct TopkForward : TopkFinish<T> {
  static constexpr int kLanes = Pack<T>::kLanes;
  using V = Pack<T>;
  using TopkFinish<T>::shape;

  Scratch<T> sums, stage, small;
  Scratch<V> lanes;
  Tridiagonal<V> t;
  V *lambda, *z, *work;

  TopkForward(const TopkShape& of, bool canonical_signs)
      : TopkFinish<T>(of, canonical_signs),
        sums(gram_width<T>(of.p) * gram_width<T>(of.p)),
        stage(gram_chunk<T>(gram_width<T>(of.p)) * gram_width<T>(of.p)),
        small(kLanes * of.k * of.p),
        lanes(Tridiagonal<V>::size(of.p) + (6 + of.k) * of.p + 3 * of.k + 8),
        t(of.p, lanes.get()),
        lambda(t.tau + of.p),
        z(lambda + of.k),
        work(z + of.k * of.p) {}

  void run(const T* A, const TopkOutputs<T>& out, int64_t count);
  void run_group(const T* A, const TopkOutputs<T>& out, int matrices);
  void eigenvectors(const TopkOutputs<T>& out, int matrices, bool* dense);
};

template <class T>
void TopkForward<T>::run(const T* A, const TopkOutputs<T>& out, int64_t count) {
  for (int64_t b = 0; b < count; b += kLanes) {
    const int matrices = static_cast<int>(count - b < kLanes ? count - b : kLanes);
    run_group(A + b * shape.m * shape.n, matrix_of(out, shape, b), matrices);
  }
}

template <class T>
void TopkForward<T>::run_group(const T* A, const TopkOutputs<T>& out, int matrices) {
  const int64_t size = shape.m * shape.n;
  T factor[kLanes];
  bool dense[kLanes];
  for (int b = 0; b < matrices; ++b) {
    T* packed = out.saved + b * shape.size() + (shape.always_dense() ? 0 : shape.reflectors_at());
    factor[b] = scaled_gram(A + b * size, shape, packed, sums.get(), stage.get());
    dense[b] = true;
  }
  if (!shape.always_dense()) eigenvectors(out, matrices, dense);
  int list[kLanes], listed = 0;
  for (int b = 0; b < matrices; ++b) {
    const TopkOutputs<T> one = matrix_of(out, shape, b);
    TopkRoute route = TopkRoute::gram;
    if (!(factor[b] == factor[b])) {
      route = TopkRoute::not_finite;
      this->fill_nan(one);
    } else if (dense[b]) {
      route = TopkRoute::dense;
      list[listed++] = b;
    } else {
      T sigma[kLargestKAbove];
      for (int i = 0; i < shape.k; ++i) sigma[i] = std::sqrt(lambda[i].lane(b));
      this->finish(A + b * size, one, factor[b], small.get() + b * shape.k * shape.p, sigma);
    }
    TopkSaved::set_route(one.saved, route);
    one.saved[TopkSaved::kScale] = factor[b];
  }
  TopkDense<T>(shape, this->canonical).run(A, out, list, listed, factor);
}

// The lanes' part: from the packed Gram matrices in saved to the small-side vectors, k x p a
// matrix. dense[b]: whether matrix b must take the dense route instead.
template <class T>
void TopkForward<T>::eigenvectors(const TopkOutputs<T>& out, int matrices, bool* dense) {
  const int p = shape.p, k = shape.k;
  const int64_t stride = shape.size();
  gather_lanes(out.saved + shape.reflectors_at(), stride, matrices, packed_size(p), t.packed);
  tridiagonalise(t, work);
  largest_eigenvalues(t.d, t.e, p, k, lambda, work);
  // One more count: does anything outside the top k lie so close that only all vectors can tell?
  V below = lambda[k - 1] - V(separation<T>(p)) * lambda[0], count;
  count_above<1>(SquaredBand<V>{t.d, work}, p, &below, V(kTinyPivot<T>), &count);
  tridiagonal_vectors(t.d, t.e, p, k, lambda, z, work);
  auto bad = count > V(T(k));
  for (int i = 0; i < k; ++i) {
    const V residual = tridiagonal_residual(t.d, t.e, p, z + i * p, lambda[i], work);
    bad = bad | !(residual <= V(kLargestResidual<T>) * lambda[0]);
    bad = bad | !(lambda[i] > V(kSmallestRatio<T> * kSmallestRatio<T>) * lambda[0]);
    if (i > 0) lambda[i] = min(lambda[i], lambda[i - 1]);
  }
  const V flag = select(bad, V(T(1)), V(T(0)));
  for (int b = 0; b < matrices; ++b) dense[b] = flag.lane(b) != T(0);
  apply_q(t, z, k, false);
  scatter_lanes(t.d, p, matrices, out.saved + shape.diagonal_at(), stride);
  scatter_lanes(t.e, p - 1, matrices, out.saved + shape.off_diagonal_at(), stride);
  scatter_lanes(t.tau, p - 2, matrices, out.saved + shape.tau_at(), stride);
  scatter_lanes(t.packed, packed_size(p), matrices, out.saved + shape.reflectors_at(), stride);
  scatter_lanes(z, k * p, matrices, small.get(), int64_t(k) * p);
}

}  // namespace kdops::svd::KDOPS_ISA
