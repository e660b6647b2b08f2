// Gradient of the top-k SVD for a small side above 128, one matrix at a time.
//
// Formulas and names: gradient_lanes.h, run on one number; the long side: long_side.h; the
// solve: complement.h. Leading vectors beyond the k-th, which the forward kept, take part by their
// values and the degenerate policy, and are out of the way of the solve.
#pragma once

#include "svd/topk/cpu/complement.h"
#include "svd/topk/cpu/long_side.h"

namespace kdops::svd::KDOPS_ISA {

template <class T>
class LargeBackward : TopkLongSide<T> {
 public:
  LargeBackward(const TopkShape& of, bool lorentz)
      : TopkLongSide<T>(of),
        lorentz_(lorentz),
        row_(this->row_size),
        result_(this->result_size()),
        small_(int64_t(of.k) * of.k),
        rhs_(int64_t(of.k) * of.p) {}

  void run(const TopkInputs<T>& in, T* gA, int64_t count) {
    const int64_t size = shape.m * shape.n;
    for (int64_t b = 0; b < count; ++b) run_one(matrix_of(in, shape, b), gA + b * size);
  }

 private:
  using TopkLongSide<T>::shape;

  void run_one(const TopkInputs<T>& in, T* gA);
  void resolve(const T* saved, const TopkCotangents<T>& g, const PolicyInverse<T>& inverse, T* x);
  void resolve_from_pairs(const T* saved, const TopkCotangents<T>& g,
                          const PolicyInverse<T>& inverse, T* x);
  bool by_gradients(const T* saved, const T* sigma, T* x);

  bool lorentz_;
  Scratch<T> row_, result_, small_, rhs_;
};

template <class T>
void LargeBackward<T>::run_one(const TopkInputs<T>& in, T* gA) {
  const int p = shape.p, k = shape.k;
  if (this->route(in.saved) == TopkRoute::not_finite)
    return void(std::fill_n(gA, shape.m * shape.n, std::numeric_limits<T>::quiet_NaN()));
  this->fill_row(in, row_.get());
  const TopkCotangents<T> g(row_.get(), p, k);
  const PolicyInverse<T> inverse(g.sigma[0], p, lorentz_);
  T *core = result_.get(), *weights = core + k * k, *x = weights + k, *y = x + int64_t(k) * p;
  core_matrix(g, inverse, core, small_.get());
  right_hand_sides(g, inverse, x);
  const auto is_zero = [](T value) { return value == T(0); };
  if (!std::all_of(x, x + int64_t(k) * p, is_zero)) resolve(in.saved, g, inverse, x);
  to_units_of_A(g, inverse, !shape.tall || in.U != nullptr, core, weights, x, y);
  this->write(in, result_.get(), gA);
}

// x (k x p): the right-hand sides on entry, clear of P.
template <class T>
void LargeBackward<T>::resolve(const T* saved, const TopkCotangents<T>& g,
                               const PolicyInverse<T>& inverse, T* x) {
  if (this->route(saved) != TopkRoute::dense) return resolve_from_pairs(saved, g, inverse, x);
  const int p = shape.p, k = shape.k;
  std::copy_n(x, int64_t(k) * p, rhs_.get());
  const T* values = saved + shape.dense_values_at();
  const PolicyInverse<T> relative(values[0], p, lorentz_);
  for (int i = 0; i < k; ++i)
    resolve_dense(values[i], values + k, this->small_vectors(saved) + k * int64_t(p), p, p - k,
                  relative, rhs_.get() + i * int64_t(p), x + i * int64_t(p));
}

template <class T>
void LargeBackward<T>::resolve_from_pairs(const T* saved, const TopkCotangents<T>& g,
                                          const PolicyInverse<T>& inverse, T* x) {
  const int p = shape.p, k = shape.k, count = static_cast<int>(saved[shape.count_at()]);
  const int before = static_cast<int>(saved[shape.before_at()]);
  const T *values = saved + shape.leading_values_at(), *matrix = saved + shape.matrix_at();
  const Directions<T> all{saved + shape.vectors_at(), p, count, p};
  Scratch<T> parts(int64_t(k) * count), again(int64_t(k) * count);
  std::copy_n(x, int64_t(k) * p, rhs_.get());
  all.remove(x, p, k, parts.get());
  for (int i = 0; i < k; ++i)
    for (int j = 0; j < count; ++j)
      parts[i * count + j] *= j < k ? T(0) : inverse.of_squares(g.sigma[i], values[j]);
  if (this->route(saved) == TopkRoute::gram) {
    resolve_tridiagonal(saved + shape.band_at(), matrix, p, g.sigma, g.doubt[0], before, k, x);
  } else if (!by_gradients(saved, g.sigma, x)) {
    resolve_by_all(matrix, p, g.sigma, before, k, inverse, rhs_.get(), x);
    return Directions<T>{all.rows, p, k, p}.remove(x, p, k, again.get());
  }
  all.remove(x, p, k, again.get());
  all.add(T(1), parts.get(), x, p, k);
}

template <class T>
bool LargeBackward<T>::by_gradients(const T* saved, const T* sigma, T* x) {
  const int p = shape.p, k = shape.k, width = spread_width<T>(p);
  const int count = static_cast<int>(saved[shape.count_at()]);
  const int64_t rows = int64_t(p) + count + k;
  Scratch<T> memory(rows * width);
  std::fill_n(memory.get(), rows * width, T(0));
  T *G = memory.get(), *D = G + int64_t(p) * width, *wide = D + int64_t(count) * width;
  const auto copy = [&](const T* from, int how_many, T* to) {
    for (int i = 0; i < how_many; ++i)
      std::copy_n(from + int64_t(i) * p, p, to + int64_t(i) * width);
  };
  copy(saved + shape.matrix_at(), p, G);
  copy(saved + shape.vectors_at(), count, D);
  copy(x, k, wide);
  if (!conjugate_gradients(G, p, width, {D, width, count, p}, sigma, k, wide)) return false;
  for (int i = 0; i < k; ++i) std::copy_n(wide + int64_t(i) * width, p, x + int64_t(i) * p);
  return true;
}

}  // namespace kdops::svd::KDOPS_ISA
