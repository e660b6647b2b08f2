// The k largest singular triples of matrices whose small side is above 128, one matrix at a time.
//
// The Gram matrix of the small side, then one of three routes to its leading vectors, each with its
// own check: block Krylov for few vectors of a large matrix, tridiagonalisation, and the full SVD
// for what a Gram matrix cannot resolve. Then the long side as for small matrices (finish.h).
#pragma once

#include "svd/topk/cpu/finish.h"
#include "svd/topk/cpu/krylov.h"
#include "svd/topk/cpu/large_gram.h"

namespace kdops::svd::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

// Where a Krylov basis costs less than the tridiagonal form.
inline bool prefers_krylov(const TopkShape& shape) { return shape.p >= 224 && shape.k <= 8; }

template <class T>
class LargeForward : TopkFinish<T> {
 public:
  LargeForward(const TopkShape& of, bool canonical_signs)
      : TopkFinish<T>(of, canonical_signs),
        width_(spread_width<T>(of.p)),
        gram_(int64_t(of.p) * width_) {}

  void run(const T* A, const TopkOutputs<T>& out, int64_t count) {
    for (int64_t b = 0; b < count; ++b) run_one(A + b * shape.m * shape.n, out.matrix(shape, b));
  }

 private:
  using TopkFinish<T>::shape;

  void run_one(const T* A, const TopkOutputs<T>& out) {
    const T f = large_gram(A, shape, gram_.get());
    TopkRoute route = TopkRoute::not_finite;
    if (f == f) route = leading(out.saved);
    if (route == TopkRoute::not_finite) {
      this->fill_nan(out);
    } else if (route == TopkRoute::dense) {
      const int first = 0;
      TopkDense<T>(shape, this->canonical).run(A, out, &first, 1, &f);
    } else {
      this->finish(A, out, f, out.saved + shape.vectors_at(),
                   out.saved + shape.leading_values_at());
    }
    out.saved[0] = static_cast<T>(static_cast<int>(route));
    out.saved[1] = f;
  }

  TopkRoute leading(T* saved);
  int by_krylov(T* saved);
  int by_tridiagonal(T* saved);

  int width_;
  Scratch<T> gram_;
};

// Leading values (of f A), vectors and their number into saved, and the route that found them.
template <class T>
TopkRoute LargeForward<T>::leading(T* saved) {
  TopkRoute route = TopkRoute::krylov;
  int count = prefers_krylov(shape) ? by_krylov(saved) : 0;
  if (count == 0) {
    route = TopkRoute::gram;
    count = by_tridiagonal(saved);
  }
  T* values = saved + shape.leading_values_at();
  if (count == 0 || !(values[shape.k - 1] > kSmallestRatio<T> * kSmallestRatio<T> * values[0]))
    return TopkRoute::dense;
  for (int i = 0; i < count; ++i) values[i] = std::sqrt(max(values[i], T(0)));
  saved[shape.count_at()] = T(count);
  return route;
}

template <class T>
int LargeForward<T>::by_krylov(T* saved) {
  const int p = shape.p;
  const int count =
      Krylov<T>(p, width_, shape.k, shape.most_leading())
          .run(gram_.get(), saved + shape.leading_values_at(), saved + shape.vectors_at());
  T* kept = saved + shape.matrix_at();
  for (int i = 0; count > 0 && i < p; ++i)
    std::copy_n(gram_.get() + int64_t(i) * width_, p, kept + int64_t(i) * p);
  return count;
}

template <class T>
int LargeForward<T>::by_tridiagonal(T* saved) {
  const int p = shape.p, count = shape.k + 4;
  LeadingPairs<T> pairs(p, width_, count);
  pairs.reduce(gram_.get(), p, width_);
  if (!pairs.pairs(count, shape.k, saved + shape.leading_values_at(), saved + shape.vectors_at(),
                   p))
    return 0;
  T *band = saved + shape.band_at(), *kept = saved + shape.matrix_at();
  std::copy_n(pairs.d(), p, band);
  std::copy_n(pairs.e(), p, band + p);
  std::copy_n(pairs.tau(), p, band + 2 * p);
  for (int i = 0; i < p; ++i)
    std::copy_n(pairs.reflectors() + int64_t(i) * width_, p, kept + int64_t(i) * p);
  return count;
}

}  // namespace kdops::svd::KDOPS_ISA
