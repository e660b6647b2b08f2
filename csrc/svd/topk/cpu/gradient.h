// Gradient of the top-k SVD: reads the long side, calls the lanes' part, writes gA once.
//
// Formulas and names: gradient_lanes.h. Two passes over A at most: N = BᵀgQ, only where the long
// side has a cotangent, and the final one that forms gA row by row (tall) or column by column
// (wide).
#pragma once

#include "common/simd/scratch.h"
#include "svd/topk/cpu/gradient_lanes.h"
#include "svd/topk/cpu/refine.h"

namespace kdops::svd::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

template <class T>
struct TopkInputs {
  const T *gU, *gS, *gVh;  // null: zero
  const T *A, *U, *S, *Vh, *saved;
};

// Vectors of the long side, of U (length x k) or of Vh (k x length).
template <class T>
struct LongVectors {
  const T* data;  // null: absent, or zero
  int64_t step, apart;

  T at(int64_t row, int j) const { return data[row * step + j * apart]; }
  // Entries [first, first + count) of vector j.
  void copy(int j, int64_t first, int count, T* to) const {
    const T* from = data + first * step + j * apart;
    for (int l = 0; l < count; ++l) to[l] = from[l * step];
  }
};

template <class T>
struct TopkBackward {
  static constexpr int kLanes = Pack<T>::kLanes;
  using V = Pack<T>;

  TopkShape shape;
  bool lorentz;
  int64_t row_size;
  Scratch<T> rows, results, buffer;
  Scratch<V> lanes;
  TopkCotangents<V> g;
  Tridiagonal<V> t;
  V *core, *x, *y, *work;

  static constexpr int kChunk = 2048 / sizeof(T);  // positions along the long side at a time

  TopkBackward(const TopkShape& of, bool lorentz_policy)
      : shape(of),
        lorentz(lorentz_policy),
        row_size(TopkCotangents<V>::size(of.p, of.k)),
        rows(kLanes * row_size),
        results(kLanes * result_size()),
        buffer(buffer_size()),
        lanes(row_size + packed_size(of.p) + (8 + 2 * of.k) * of.p + 2 * of.k * of.k + of.k),
        g(lanes.get(), of.p, of.k) {
    const int p = of.p, k = of.k;
    V* next = lanes.get() + row_size;
    t = {p, next, next + packed_size(p), nullptr, nullptr};
    t.e = t.d + p, t.tau = t.e + p;
    core = t.tau + p, x = core + k * k + k, y = x + k * p, work = y + k * p;
  }

  // What the lanes hand back for a matrix: core - X inv(s) (k x k), f inv(s) (k), y and r (k x p).
  int64_t result_size() const { return shape.k * shape.k + shape.k + 2 * shape.k * shape.p; }
  int64_t buffer_size() const {
    const int64_t by_rows = 2 * shape.k * (kLanes + 3 * shape.p);
    const int64_t by_columns = 2 * shape.k * (kChunk + 2 * shape.p + kLanes);
    return shape.long_rows ? by_rows : by_columns;
  }
  bool long_cotangent(const TopkInputs<T>& in) const { return shape.tall ? in.gU : in.gVh; }
  TopkRoute route(const T* saved) const {
    return static_cast<TopkRoute>(static_cast<int>(saved[0]));
  }
  const T* small_vectors(const T* saved) const {
    return saved +
           (route(saved) == TopkRoute::dense ? shape.dense_vectors_at() : shape.vectors_at());
  }
  TopkInputs<T> matrix(const TopkInputs<T>& in, int64_t b) const;

  void run(const TopkInputs<T>& in, T* gA, int64_t count);
  void run_group(const TopkInputs<T>& in, T* gA, int matrices);
  void fill_row(const TopkInputs<T>& in, T* row);
  void solve_group(const TopkInputs<T>& in, int matrices);
  void solve_dense_lane(const T* saved, int lane);
  LongVectors<T> long_vectors(const T* U, const T* Vh) const {
    return shape.tall ? LongVectors<T>{U, shape.k, 1} : LongVectors<T>{Vh, 1, shape.length};
  }
  void small_side_product(const T* A, const LongVectors<T>& x, T* out);
  void write_by_rows(const TopkInputs<T>& in, const T* result, T* gA);
  void write_by_columns(const TopkInputs<T>& in, const T* result, T* gA);
};

template <class T>
TopkInputs<T> TopkBackward<T>::matrix(const TopkInputs<T>& in, int64_t b) const {
  const auto at = [b](const T* base, int64_t stride) { return base ? base + b * stride : nullptr; };
  const int64_t u = shape.m * shape.k, v = shape.k * shape.n;
  return {at(in.gU, u), at(in.gS, shape.k), at(in.gVh, v), at(in.A, shape.m * shape.n),
          at(in.U, u),  at(in.S, shape.k),  at(in.Vh, v),  at(in.saved, shape.saved_size())};
}

template <class T>
void TopkBackward<T>::run(const TopkInputs<T>& in, T* gA, int64_t count) {
  for (int64_t b = 0; b < count; b += kLanes) {
    const int matrices = static_cast<int>(count - b < kLanes ? count - b : kLanes);
    run_group(matrix(in, b), gA + b * shape.m * shape.n, matrices);
  }
}

template <class T>
void TopkBackward<T>::run_group(const TopkInputs<T>& in, T* gA, int matrices) {
  const int64_t size = shape.m * shape.n;
  for (int b = 0; b < matrices; ++b) fill_row(matrix(in, b), rows.get() + b * row_size);
  solve_group(in, matrices);
  for (int b = 0; b < matrices; ++b) {
    const TopkInputs<T> one = matrix(in, b);
    T* out = gA + b * size;
    if (route(one.saved) == TopkRoute::not_finite)
      for (int64_t i = 0; i < size; ++i) out[i] = std::numeric_limits<T>::quiet_NaN();
    else if (shape.long_rows)
      write_by_rows(one, results.get() + b * result_size(), out);
    else
      write_by_columns(one, results.get() + b * result_size(), out);
  }
}

// The matrix's row of TopkCotangents. X and N are zero without a cotangent for the long side.
template <class T>
void TopkBackward<T>::fill_row(const TopkInputs<T>& in, T* row) {
  const int p = shape.p, k = shape.k;
  const int64_t m = shape.m, n = shape.n;
  for (int64_t i = 0; i < row_size; ++i) row[i] = T(0);
  const T f = in.saved[1];
  T *P = row, *gP = P + k * p, *N = gP + k * p, *X = N + k * p, *sigma = X + k * k;
  if (route(in.saved) == TopkRoute::not_finite) return;
  const T* vectors = small_vectors(in.saved);
  for (int i = 0; i < k * p; ++i) P[i] = vectors[i];
  for (int i = 0; i < k; ++i) {
    sigma[i] = in.S[i] * f;
    sigma[k + i] = in.gS ? in.gS[i] : T(0);
  }
  sigma[2 * k] = f;
  if (shape.tall) {
    for (int i = 0; in.gVh && i < k * p; ++i) gP[i] = in.gVh[i];
    if (!in.gU) return;
    row_sums(in.gU, k, m, k, in.U, k, 1, k, X, k);
  } else {
    for (int q = 0; in.gU && q < p; ++q)
      for (int i = 0; i < k; ++i) gP[i * p + q] = in.gU[q * k + i];
    if (!in.gVh) return;
    inner_products(in.Vh, n, k, in.gVh, n, k, n, X, k, 1);
  }
  small_side_product(in.A, long_vectors(in.gU, in.gVh), N);
}

// out (k x p) = Bᵀ x.
template <class T>
void TopkBackward<T>::small_side_product(const T* A, const LongVectors<T>& x, T* out) {
  const int p = shape.p, k = shape.k;
  const int64_t length = shape.length;
  if (shape.long_rows) return row_sums(A, p, length, p, x.data, x.step, x.apart, k, out, p);
  if (x.step == 1) return inner_products(A, length, p, x.data, length, k, length, out, 1, p);
  Scratch<T> copies(k * length);
  for (int j = 0; j < k; ++j) x.copy(j, 0, static_cast<int>(length), copies.get() + j * length);
  inner_products(A, length, p, copies.get(), length, k, length, out, 1, p);
}

template <class T>
void TopkBackward<T>::solve_dense_lane(const T* saved, int lane) {
  const int p = shape.p, k = shape.k;
  const T* sigma = saved + shape.dense_values_at();
  const PolicyInverse<T> inverse(sigma[0], p, lorentz);
  T rhs[128], solution[128];
  for (int i = 0; i < k; ++i) {
    for (int q = 0; q < p; ++q) rhs[q] = y[i * p + q].lane(lane);
    resolve_dense(sigma, small_vectors(saved), p, k, i, inverse, rhs, solution);
    for (int q = 0; q < p; ++q) x[i * p + q].set_lane(lane, solution[q]);
  }
}

template <class T>
void TopkBackward<T>::solve_group(const TopkInputs<T>& in, int matrices) {
  const int p = shape.p, k = shape.k;
  const int64_t stride = shape.saved_size();
  gather_lanes(rows.get(), row_size, matrices, static_cast<int>(row_size), lanes.get());
  const PolicyInverse<V> inverse(g.sigma[0], p, lorentz);
  core_matrix(g, p, k, inverse, core, work);
  right_hand_sides(g, p, k, inverse, x);
  for (int i = 0; i < k * p; ++i) y[i] = x[i];
  if (!shape.always_dense()) {
    gather_lanes(in.saved + shape.diagonal_at(), stride, matrices, p, t.d);
    gather_lanes(in.saved + shape.off_diagonal_at(), stride, matrices, p - 1, t.e);
    gather_lanes(in.saved + shape.tau_at(), stride, matrices, p - 2, t.tau);
    gather_lanes(in.saved + shape.packed_at(), stride, matrices, packed_size(p), t.packed);
    resolve_complement(g, t, k, x, work);
  }
  for (int b = 0; b < matrices; ++b)
    if (route(in.saved + b * stride) == TopkRoute::dense)
      solve_dense_lane(in.saved + b * stride, b);
  // Into the units of A: y = f x, r = f s x; without Q, whose part moves into y, r = y.
  const bool have_long = !shape.tall || in.U != nullptr;
  V *weights = core + k * k, *r = y;
  for (int j = 0; j < k; ++j) {
    weights[j] = g.f[0] * inverse(g.sigma[j]);
    for (int i = 0; i < k; ++i) core[i * k + j] -= g.X[i * k + j] * weights[j];
  }
  for (int j = 0; j < k; ++j) {
    const V s = have_long ? g.sigma[j] : V(T(1));
    for (int q = 0; q < p; ++q) {
      x[j * p + q] = x[j * p + q] * g.f[0];
      r[j * p + q] = s * x[j * p + q];
    }
    for (int i = 0; !have_long && i < k; ++i) {
      const V weight = core[i * k + j] * inverse(g.sigma[i]);
      for (int q = 0; q < p; ++q) x[j * p + q] = fma(weight, g.P[i * p + q], x[j * p + q]);
    }
  }
  const int64_t out = result_size();
  scatter_lanes(core, k * k + k, matrices, results.get(), out);
  scatter_lanes(x, 2 * k * p, matrices, results.get() + k * k + k, out);
}

// gA = Σ_j t_j P_jᵀ + Q_j r_jᵀ, t_j = f A y_j + Σ_i Q_i C_ij + gQ_j w_j; kLanes rows at a time.
template <class T>
void TopkBackward<T>::write_by_rows(const TopkInputs<T>& in, const T* result, T* gA) {
  const int p = shape.p, k = shape.k;
  const T *C = result, *weights = C + k * k, *y = weights + k, *r = y + k * p;
  const T f = in.saved[1], *P = small_vectors(in.saved);
  const LongVectors<T> Q = long_vectors(in.U, in.Vh), gQ = long_vectors(in.gU, in.gVh);
  T *left = buffer.get(), *right = left + 2 * k * kLanes, *vectors = right + 2 * k * p;
  for (int i = 0; i < k * p; ++i) {
    right[i] = P[i], right[k * p + i] = r[i];
  }
  // The second half gives Q s where Q is absent.
  const int terms = Q.data == nullptr ? 2 * k : k;
  T* stacked = vectors + 2 * k * p;
  for (int i = 0; i < k * p; ++i) stacked[i] = y[i], stacked[k * p + i] = P[i];
  interleave_vectors(stacked, p, terms, p, vectors);
  V block[2 * kMaxTop];
  for (int64_t row = 0; row < shape.length; row += kLanes) {
    const int count = static_cast<int>(shape.length - row < kLanes ? shape.length - row : kLanes);
    short_row_dots(in.A + row * p, p, count, p, vectors, terms, block);
    for (int j = 0; j < terms; ++j) (block[j] * V(f)).store(left + j * kLanes);
    for (int l = 0; Q.data != nullptr && l < count; ++l) {
      for (int j = 0; j < k; ++j) {
        T sum = gQ.data ? gQ.at(row + l, j) * weights[j] : T(0);
        for (int i = 0; i < k; ++i) sum += Q.at(row + l, i) * C[i * k + j];
        left[j * kLanes + l] += sum;
        left[(k + j) * kLanes + l] = Q.at(row + l, j);
      }
    }
    outer_sums(left, kLanes, right, p, 2 * k, count, p, gA + row * p, p);
  }
}

// gA = Σ_j P_j t_jᵀ + r_j Q_jᵀ with t as above; kChunk columns at a time.
template <class T>
void TopkBackward<T>::write_by_columns(const TopkInputs<T>& in, const T* result, T* gA) {
  const int p = shape.p, k = shape.k;
  const int64_t length = shape.length, ldl = p + kLanes;
  const T *C = result, *weights = C + k * k, *y = weights + k, *r = y + k * p;
  const T f = in.saved[1], *P = small_vectors(in.saved);
  const LongVectors<T> Q = long_vectors(in.U, in.Vh), gQ = long_vectors(in.gU, in.gVh);
  T *left = buffer.get(), *right = left + 2 * k * ldl, *stacked = right + 2 * k * kChunk;
  for (int j = 0; j < k; ++j)
    for (int q = 0; q < p; ++q)
      left[j * ldl + q] = P[j * p + q], left[(k + j) * ldl + q] = r[j * p + q];
  // The second half gives Q s where Q is absent.
  const int terms = Q.data == nullptr ? 2 * k : k;
  for (int i = 0; i < k * p; ++i) stacked[i] = y[i], stacked[k * p + i] = P[i];
  for (int64_t c = 0; c < length; c += kChunk) {
    const int count = static_cast<int>(length - c < kChunk ? length - c : kChunk);
    row_sums(in.A + c, length, p, count, stacked, 1, p, terms, right, kChunk);
    for (int j = 0; j < terms; ++j) scale_row(right + j * kChunk, count, f);
    for (int j = 0; Q.data != nullptr && j < k; ++j) {
      T *to = right + j * kChunk, *q = right + (k + j) * kChunk;
      for (int l = 0; gQ.data && l < count; ++l) to[l] += gQ.at(c + l, j) * weights[j];
      Q.copy(j, c, count, q);
    }
    if (Q.data != nullptr)
      row_sums(right + k * kChunk, kChunk, k, count, C, k, 1, k, right, kChunk, true);
    outer_sums(left, ldl, right, kChunk, 2 * k, p, count, gA + c, length);
  }
}

}  // namespace kdops::svd::KDOPS_ISA
