// x_i = (s_i² - G)⁺ b_i on the complement of the leading vectors of G, for the gradient.
//
// Three ways, as the forward's routes: conjugate gradients on the saved Gram matrix, deflated with
// the leading vectors (only such as have converged: others would cost the accuracy); a tridiagonal
// solve between two sweeps of the saved reflectors; all eigenvectors.
#pragma once

#include "svd/full/cpu/signs.h"
#include "svd/full/cpu/square.h"
#include "svd/shared/krylov_rules.h"
#include "svd/topk/cpu/directions.h"
#include "svd/topk/cpu/gradient_lanes.h"
#include "svd/topk/cpu/large_gram.h"
#include "svd/topk/cpu/leading_pairs.h"
#include "svd/topk/cpu/refine.h"

namespace kdops::svd::KDOPS_ISA {

// One right-hand side's way through the iteration.
template <class T>
struct GradientStep {
  T shift, scale, square, goal;  // s²; b's factor; |r|², and the |r|² that is good enough
  bool live() const { return square > goal; }
};

// x (k x width; b on entry, clear of D) by conjugate gradients; the padding of all rows is zero. The
// squares of b neither vanish nor overflow, however large it is: it is scaled by a power of two.
// False where they do not get there, or meet a direction in which s² - G is not positive.
template <class T>
bool conjugate_gradients(const T* G, int p, int width, const Directions<T>& D, const T* sigma,
                         int k, T* x) {
  using P = Pack<T>;
  const int64_t size = int64_t(k) * width;
  Scratch<T> memory(3 * size + int64_t(k) * D.count);
  T *r = memory.get(), *direction = r + size, *q = direction + size, *parts = q + size;
  GradientStep<T> steps[kLargestKAbove];
  std::fill_n(q, size, T(0));
  for (int i = 0; i < k; ++i) {
    T *b = x + i * width, *ri = r + i * width;
    const T scale = row_scale(largest_entry(b, width));
    scale_row(b, width, scale);
    std::copy_n(b, width, ri);
    std::copy_n(b, width, direction + i * width);
    scale_row(b, width, T(0));  // NaN stays
    const T square = dot_rows(ri, ri, width);
    steps[i] = {sigma[i] * sigma[i], scale, square, square * kSolved<T> * kSolved<T>};
  }
  for (int products = 0; products <= kMostProducts; ++products) {
    bool live = false;
    for (int i = 0; i < k; ++i) live = live || steps[i].live();
    if (!live) {
      for (int i = 0; i < k; ++i) scale_row(x + i * width, width, 1 / steps[i].scale);
      return true;
    }
    gemm<T>(k, p, p, T(-1), {direction, width, 1}, {G, width, 1}, View<T>{q, width, 1});
    for (int i = 0; i < k; ++i)
      for (int c = 0; c < width; c += P::kLanes) {
        T* to = q + i * width + c;
        fma(P(steps[i].shift), P::load(direction + i * width + c), P::load(to)).store(to);
      }
    D.remove(q, width, k, parts);
    for (int i = 0; i < k; ++i) {
      if (!steps[i].live()) continue;
      T *xi = x + i * width, *ri = r + i * width, *di = direction + i * width;
      const T* qi = q + i * width;
      const T curvature = dot_rows(di, qi, width), length = dot_rows(di, di, width);
      if (!is_positive(curvature, length, p)) return false;
      const P forth(steps[i].square / curvature);
      for (int c = 0; c < width; c += P::kLanes) {
        fma(forth, P::load(di + c), P::load(xi + c)).store(xi + c);
        fma(-forth, P::load(qi + c), P::load(ri + c)).store(ri + c);
      }
      const T square = dot_rows(ri, ri, width);
      const P along(square / steps[i].square);
      steps[i].square = square;
      for (int c = 0; c < width; c += P::kLanes)
        fma(along, P::load(di + c), P::load(ri + c)).store(di + c);
    }
  }
  return false;
}

// x (k x p; b on entry) by the tridiagonal form G = Q T Qᵀ: d, e, tau (p each) and reflectors.
// doubt: what the forward saved, see solve_complement; `before` of the k vectors are not G's.
template <class T>
void resolve_tridiagonal(const T* band, const T* reflectors, int p, const T* sigma, T doubt,
                         int before, int k, T* x) {
  Scratch<T> work(kResolveArrays * int64_t(p));
  const T *d = band, *e = d + p, *tau = e + p;
  const auto square = [&](int i) { return sigma[i] * sigma[i]; };
  const T distance = safe_distance(doubt, square(before));
  const T least = std::numeric_limits<T>::epsilon() * square(before);
  apply_reflectors(reflectors, p, tau, p, x, p, k, true);
  for (int i = 0; i < k; ++i) {
    const T shift = clear_shift(square, i, distance);
    resolve_shifted(TridiagonalBand<T>{d, e}, p, shift, shift - square(i), least,
                    Entries<T>{x + i * int64_t(p)}, work.get());
  }
  apply_reflectors(reflectors, p, tau, p, x, p, k, false);
}

// x from all eigenvectors of G (p x p) and the policy on every pair. `before` of the k vectors are
// not G's.
template <class T>
void resolve_by_all(const T* G, int p, const T* sigma, int before, int k,
                    const PolicyInverse<T>& inverse, const T* b, T* x) {
  SquareBatch<T> eigen(p, false, true, false);
  eigen.symmetric(G, int64_t(p) * p, 1);
  Scratch<T> values(p), vectors(int64_t(p) * p);
  Scratch<int> order(p);
  sort_descending(eigen.values(0), p, order.get());
  for (int j = 0; j < p; ++j) {
    values[j] = std::sqrt(max(eigen.values(0)[order[j]] * eigen.scale[0], T(0)));
    std::copy_n(eigen.v(0) + int64_t(order[j]) * eigen.stride, p, vectors.get() + int64_t(j) * p);
  }
  const int own = k - before;  // G's first vectors, which b is clear of
  for (int i = 0; i < k; ++i)
    resolve_dense(sigma[i], values.get() + own, vectors.get() + own * int64_t(p), p, p - own,
                  inverse, b + i * int64_t(p), x + i * int64_t(p));
}

}  // namespace kdops::svd::KDOPS_ISA
