// The k largest singular triples of matrices whose small side is above 128, one matrix at a time.
//
// The Gram matrix of the small side, then its leading vectors by block Krylov, where few are wanted
// of a large matrix, or by the tridiagonal form, each with its own check. A Gram matrix resolves
// values down to s_1 / 48: smaller ones come in further rounds, each from the Gram matrix of A less
// the triples found so far. What that does not find is decomposed in full. Then the long side as
// for small matrices (finish.h).
#pragma once

#include "svd/topk/cpu/directions.h"
#include "svd/topk/cpu/finish.h"
#include "svd/topk/cpu/krylov.h"
#include "svd/topk/cpu/large_gram.h"

namespace kdops::svd::KDOPS_ISA {

// Where a Krylov basis costs less than the tridiagonal form.
inline bool prefers_krylov(int p, int wanted) {
  return p >= kKrylovFromSmallSide && wanted <= kLargestKrylovK;
}

// From here on the full decomposition is as fast.
inline constexpr int kMostRounds = 6;

template <class T>
class LargeForward : TopkFinish<T> {
 public:
  LargeForward(const TopkShape& of, bool canonical_signs)
      : TopkFinish<T>(of, canonical_signs),
        width_(spread_width<T>(of.p)),
        gram_(int64_t(of.p) * width_) {}

  void run(const T* A, const TopkOutputs<T>& out, int64_t count) {
    for (int64_t b = 0; b < count; ++b)
      run_one(A + b * shape.m * shape.n, matrix_of(out, shape, b));
  }

 private:
  using TopkFinish<T>::shape;

  void run_one(const T* A, const TopkOutputs<T>& out) {
    const T first_f = large_gram(A, shape, gram_.get());
    T f = first_f;
    TopkRoute route = TopkRoute::not_finite;
    if (f == f) route = leading(A, out.saved, &f);
    if (route == TopkRoute::not_finite) {
      this->fill_nan(out);
    } else if (route == TopkRoute::dense) {
      const int first = 0;
      f = first_f;
      TopkDense<T>(shape, this->canonical).run(A, out, &first, 1, &f);
    } else {
      this->finish(A, out, f, out.saved + shape.vectors_at(), out.saved + shape.leading_values_at(),
                   static_cast<int>(out.saved[shape.before_at()]));
    }
    TopkSaved::set_route(out.saved, route);
    out.saved[TopkSaved::kScale] = f;
  }

  TopkRoute leading(const T* A, T* saved, T* f);
  bool deflated_gram(const T* A, T* saved, int found, T* f);
  void clear_of_known(T* saved, int found, int count);
  // s_1 of f A, if it is of an earlier round.
  T largest(const T* saved, int found) const {
    return found > 0 ? std::sqrt(saved[shape.leading_values_at()]) : T(0);
  }
  int by_krylov(T* saved, int found);
  int by_tridiagonal(T* saved, int found);

  int width_;
  Scratch<T> gram_;
};

// Leading values (of f A), vectors and their number into saved, and the route of the last round. f:
// of the first round on entry, of the last one on return.
template <class T>
TopkRoute LargeForward<T>::leading(const T* A, T* saved, T* f) {
  const int k = shape.k;
  const T whole = *f, zero = closeness<T>(shape.p);  // of s_1: the policy calls it zero
  T* values = saved + shape.leading_values_at();
  for (int round = 0, found = 0; round < kMostRounds; ++round) {
    if (found > 0 && !(deflated_gram(A, saved, found, f) && *f * zero < whole)) break;
    TopkRoute route = TopkRoute::krylov;
    int count = prefers_krylov(shape.p, k - found) ? by_krylov(saved, found) : 0;
    if (count == 0) {
      route = TopkRoute::gram;
      count = by_tridiagonal(saved, found);
    }
    if (count == 0) break;
    clear_of_known(saved, found, count);
    saved[shape.before_at()] = T(found);
    found += count;
    if (found < k) continue;
    if (!(values[k - 1] > zero * zero * values[0])) break;
    for (int i = 0; i < found; ++i) values[i] = std::sqrt(max(values[i], T(0)));
    saved[shape.count_at()] = T(found);
    return route;
  }
  return TopkRoute::dense;
}

// The Gram matrix of A less the `found` pairs that are known, its f, and their values in its units.
template <class T>
bool LargeForward<T>::deflated_gram(const T* A, T* saved, int found, T* f) {
  const int64_t p = shape.p, length = shape.length;
  const T* P = saved + shape.vectors_at();
  Scratch<T> rest(p * length), images(found * length);
  for (int64_t i = 0; i < p * length; ++i) rest[i] = *f * A[i];
  const View<const T> by_small{rest.get(), shape.long_rows ? 1 : length, shape.long_rows ? p : 1};
  const View<T> W{images.get(), length, 1};
  gemm<T>(found, length, p, T(1), {P, p, 1}, by_small, W);
  if (shape.long_rows)
    gemm<T>(length, p, found, T(-1), {W.data, 1, length}, {P, p, 1}, View<T>{rest.get(), p, 1},
            true);
  else
    gemm<T>(p, length, found, T(-1), {P, 1, p}, {W.data, length, 1}, View<T>{rest.get(), length, 1},
            true);
  const T up = large_gram(rest.get(), shape, gram_.get());
  *f *= up;
  T* values = saved + shape.leading_values_at();
  for (int i = 0; i < found; ++i) values[i] *= up * up;
  return std::isfinite(*f);
}

// The `count` vectors behind the first `found` lose what rounding of A left in them of these.
template <class T>
void LargeForward<T>::clear_of_known(T* saved, int found, int count) {
  if (found == 0) return;
  const int p = shape.p;
  T *P = saved + shape.vectors_at(), *fresh = P + found * int64_t(p);
  Scratch<T> parts(int64_t(count) * found);
  Directions<T>{P, p, found, p}.remove(fresh, p, count, parts.get());
  for (int i = 0; i < count; ++i) {
    T* x = fresh + i * int64_t(p);
    scale_row(x, p, 1 / std::sqrt(dot_rows(x, x, p)));
  }
}

// How many pairs more are found, written behind the first `found`.
template <class T>
int LargeForward<T>::by_krylov(T* saved, int found) {
  const int p = shape.p;
  const int count =
      Krylov<T>(p, width_, shape.k - found, shape.most_leading() - found, largest(saved, found))
          .run(gram_.get(), saved + shape.leading_values_at() + found,
               saved + shape.vectors_at() + found * int64_t(p));
  T* kept = saved + shape.matrix_at();
  for (int i = 0; count > 0 && i < p; ++i)
    std::copy_n(gram_.get() + int64_t(i) * width_, p, kept + int64_t(i) * p);
  return count;
}

template <class T>
int LargeForward<T>::by_tridiagonal(T* saved, int found) {
  const int p = shape.p, wanted = shape.k - found;
  T* values = saved + shape.leading_values_at() + found;
  int count = wanted + 4;
  LeadingPairs<T> pairs(p, width_, count);
  pairs.reduce(gram_.get(), p, width_);
  pairs.values(count, values);
  const int within = resolved(values, wanted);
  const T last = values[wanted - 1];
  if (within < wanted)
    count = within;
  else if (pairs.above(last - clearance(p, values[0], largest(saved, found) * std::sqrt(last))) >
           count)
    return 0;
  if (!pairs.vectors(count, values, saved + shape.vectors_at() + found * int64_t(p), p)) return 0;
  T *band = saved + shape.band_at(), *kept = saved + shape.matrix_at();
  std::copy_n(pairs.d(), p, band);
  std::copy_n(pairs.e(), p, band + p);
  std::copy_n(pairs.tau(), p, band + 2 * p);
  for (int i = 0; i < p; ++i)
    std::copy_n(pairs.reflectors() + int64_t(i) * width_, p, kept + int64_t(i) * p);
  return count;
}

}  // namespace kdops::svd::KDOPS_ISA
