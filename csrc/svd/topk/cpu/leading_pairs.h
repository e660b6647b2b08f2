// The largest eigenpairs of one symmetric positive semi-definite matrix of any order, and what its
// tridiagonal form is good for later.
//
// The reduction works on the rows of one matrix (matrix_reduce.h); values by Sturm counts and
// vectors by inverse iteration are those of the lanes (multisection.h, inverse_iteration.h), run on
// one number: beside the reduction they are cheap. G must be scaled to trace ~ 1.
#pragma once

#include "common/simd/pack_loop.h"
#include "common/simd/scratch.h"
#include "svd/full/cpu/matrix_reduce.h"
#include "svd/topk/cpu/inverse_iteration.h"
#include "svd/topk/cpu/multisection.h"

namespace kdops::svd::KDOPS_ISA {

// N vectors z, ldz apart: z <- (I - tau v vᵀ) z, where v is zero before `at`.
template <int N, class T>
inline void reflect_rows(const T* v, T tau, int at, int n, T* z, int64_t ldz) {
  using P = Pack<T>;
  const int begin = at / P::kLanes * P::kLanes;
  P sum[N];
  for (int c = 0; c < N; ++c) sum[c] = P(T(0));
  for_packs<T>(n - begin, [&](int64_t j, int lanes) {
    const P x = load_some(v + begin + j, lanes);
    for (int c = 0; c < N; ++c) sum[c] = fma(x, load_some(z + c * ldz + begin + j, lanes), sum[c]);
  });
  for (int c = 0; c < N; ++c) sum[c] = P(-tau * reduce_add(sum[c]));
  for_packs<T>(n - begin, [&](int64_t j, int lanes) {
    const P x = load_some(v + begin + j, lanes);
    for (int c = 0; c < N; ++c) {
      T* to = z + c * ldz + begin + j;
      store_some(fma(sum[c], x, load_some(to, lanes)), to, lanes);
    }
  });
}

// z (count vectors of n numbers, ldz apart) <- Q z or Qᵀ z, for the n - 1 reflectors (rows, ldv
// apart) of matrix_tridiagonalise.
template <class T>
void apply_reflectors(const T* v, int64_t ldv, const T* tau, int n, T* z, int64_t ldz, int count,
                      bool transposed) {
  for (int step = 0; step + 1 < n; ++step) {
    const int j = transposed ? step : n - 2 - step;
    const T* row = v + j * ldv;
    int c = 0;
    for (; c + 4 <= count; c += 4) reflect_rows<4>(row, tau[j], j + 1, n, z + c * ldz, ldz);
    for (; c < count; ++c) reflect_rows<1>(row, tau[j], j + 1, n, z + c * ldz, ldz);
  }
}

// How many of `count` eigenvalues, descending, a Gram matrix resolves.
template <class T>
inline int resolved(const T* values, int count) {
  constexpr T least = kSmallestRatio<T> * kSmallestRatio<T>;
  int found = 0;
  while (found < count && values[found] > least * values[0]) ++found;
  return found;
}

template <class T>
class LeadingPairs {
 public:
  // Of matrices up to this order, whose rows lie up to `stride` apart.
  LeadingPairs(int order, int stride, int most)
      : longest_(stride),
        reflectors_(int64_t(order) * stride),
        band_(3 * stride),
        work_((ReduceWork<T>::kVectors + 1) * stride + 2 * most) {}

  // After reduce(): G = Q T Qᵀ, T with diagonal d and off-diagonal e, Q as reflectors and tau.
  const T* d() const { return band_.get(); }
  const T* e() const { return d() + longest_; }
  const T* tau() const { return e() + longest_; }
  const T* reflectors() const { return reflectors_.get(); }

  // G (n rows, `stride` apart, a multiple of the register, with zeros from n on) is destroyed. The
  // reflectors become rows as far apart.
  void reduce(T* G, int n, int stride) {
    n_ = n;
    stride_ = stride;
    T* band = band_.get();
    matrix_tridiagonalise(G, n, stride, reflectors_.get(), band, band + longest_,
                          band + 2 * longest_, ReduceWork<T>(work_.get(), stride));
  }

  // The `count` largest values, descending.
  void values(int count, T* values) {
    largest_eigenvalues(d(), e(), n_, count, values, work_.get());
  }

  // Right after values(): how many values are larger than `below`.
  int above(T below) const {
    T above;
    count_above<1>(SquaredBand<T>{d(), work_.get()}, n_, &below, kTinyPivot<T>, &above);
    return static_cast<int>(above);
  }

  // The vectors of these values, ldv apart. False where one fails its check.
  bool vectors(int count, T* values, T* vectors, int64_t ldv) {
    T* work = work_.get();
    bool good = true;
    Scratch<T> z(int64_t(count) * n_);
    tridiagonal_vectors(d(), e(), n_, count, values, z.get(), work);
    for (int i = 0; i < count; ++i) {
      const T* vector = z.get() + i * int64_t(n_);
      const T residual = tridiagonal_residual(d(), e(), n_, vector, values[i], work);
      good = good && residual <= kLargestResidual<T> * values[0];
      if (i > 0) values[i] = min(values[i], values[i - 1]);
      std::copy_n(vector, n_, vectors + i * ldv);
    }
    apply_reflectors(reflectors(), stride_, tau(), n_, vectors, ldv, count, false);
    return good;
  }

 private:
  int longest_, stride_ = 0, n_ = 0;
  Scratch<T> reflectors_, band_, work_;
};

}  // namespace kdops::svd::KDOPS_ISA
