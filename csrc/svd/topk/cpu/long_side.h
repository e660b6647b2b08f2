// The long side of the top-k gradient, one matrix at a time: what it contributes to the small
// problem, and gA.
//
// Formulas and names: gradient_lanes.h. Two passes over A at most: N = BᵀgQ, only where the long
// side has a cotangent, and the final one that forms gA row by row (tall) or column by column
// (wide).
#pragma once

#include <algorithm>

#include "common/simd/scratch.h"
#include "svd/topk/cpu/gradient_lanes.h"
#include "svd/topk/cpu/refine.h"
#include "svd/topk/topk_simd.h"

namespace kdops::svd::KDOPS_ISA {

template <class T>
TopkInputs<T> from_matrix(const TopkInputs<T>& all, const TopkShape& shape, int64_t b) {
  const auto at = [b](const T* data, int64_t stride) { return data ? data + b * stride : nullptr; };
  const int64_t u = shape.m * shape.k, v = shape.k * shape.n;
  return {at(all.gU, u), at(all.gS, shape.k), at(all.gVh, v), at(all.A, shape.m * shape.n),
          at(all.U, u),  at(all.S, shape.k),  at(all.Vh, v),  at(all.saved, shape.size())};
}
// Matrix b alone; the vectors of one that counts as zero have no cotangents.
template <class T>
TopkInputs<T> matrix_of(const TopkInputs<T>& all, const TopkShape& shape, int64_t b) {
  TopkInputs<T> one = from_matrix(all, shape, b);
  if (one.S[0] < kLeastUnit<T>) one.gU = one.gVh = nullptr;
  return one;
}

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
struct TopkLongSide {
  static constexpr int kLanes = Pack<T>::kLanes;
  static constexpr int kChunk = 2048 / sizeof(T);  // positions along the long side at a time

  TopkShape shape;
  int64_t row_size;
  Scratch<T> buffer;

  explicit TopkLongSide(const TopkShape& of)
      : shape(of), row_size(TopkCotangents<T>::size(of.p, of.k)), buffer(buffer_size()) {}

  // What the lanes hand back for a matrix: core - X inv(s) (k x k), f inv(s) (k), y and r (k x p).
  int64_t result_size() const { return shape.k * shape.k + shape.k + 2 * shape.k * shape.p; }
  int64_t buffer_size() const {
    const int64_t by_rows = 2 * shape.k * (kLanes + 3 * shape.p);
    const int64_t by_columns = 2 * shape.k * (kChunk + 2 * shape.p + kLanes);
    return shape.long_rows ? by_rows : by_columns;
  }
  bool long_cotangent(const TopkInputs<T>& in) const { return shape.tall ? in.gU : in.gVh; }
  TopkRoute route(const T* saved) const {
    return static_cast<TopkRoute>(static_cast<int>(saved[TopkSaved::kRoute]));
  }
  const T* small_vectors(const T* saved) const {
    return saved +
           (route(saved) == TopkRoute::dense ? shape.dense_vectors_at() : shape.vectors_at());
  }

  void fill_row(const TopkInputs<T>& in, T* row);
  LongVectors<T> long_vectors(const T* U, const T* Vh) const {
    return shape.tall ? LongVectors<T>{U, shape.k, 1} : LongVectors<T>{Vh, 1, shape.length};
  }
  void small_side_product(const T* A, const LongVectors<T>& x, T* out);
  void write_by_rows(const TopkInputs<T>& in, const T* result, T* gA);
  void write_by_columns(const TopkInputs<T>& in, const T* result, T* gA);
  // gA from the result_size() numbers of the small problem.
  void write(const TopkInputs<T>& in, const T* result, T* gA) {
    if (shape.long_rows)
      write_by_rows(in, result, gA);
    else
      write_by_columns(in, result, gA);
  }
};

// The matrix's row of TopkCotangents. X and N are zero without a cotangent for the long side.
template <class T>
void TopkLongSide<T>::fill_row(const TopkInputs<T>& in, T* row) {
  const int p = shape.p, k = shape.k;
  const int64_t m = shape.m, n = shape.n;
  const T f = in.saved[TopkSaved::kScale];
  T *P = row, *gP = P + k * p, *N = gP + k * p, *X = N + k * p, *sigma = X + k * k;
  if (route(in.saved) == TopkRoute::not_finite) {
    std::fill(row, row + row_size, T(0));
    return;
  }
  if (!(shape.tall ? in.gVh : in.gU)) std::fill(gP, N, T(0));
  if (!long_cotangent(in)) std::fill(N, sigma, T(0));
  const T* vectors = small_vectors(in.saved);
  for (int i = 0; i < k * p; ++i) P[i] = vectors[i];
  for (int i = 0; i < k; ++i) {
    sigma[i] = in.S[i] * f;
    sigma[k + i] = in.gS ? in.gS[i] : T(0);
  }
  sigma[2 * k] = f;
  sigma[2 * k + 1] = in.saved[TopkSaved::kDoubt];  // read after the Gram route only
  if (shape.tall) {
    for (int i = 0; in.gVh && i < k * p; ++i) gP[i] = in.gVh[i];
    if (!in.gU) return;
    long_row_sums<T>({in.gU, k, m}, k, {in.U, k, 1}, k, X);
  } else {
    for (int q = 0; in.gU && q < p; ++q)
      for (int i = 0; i < k; ++i) gP[i * p + q] = in.gU[q * k + i];
    if (!in.gVh) return;
    inner_products<T>({in.Vh, n, k}, {in.gVh, n, k}, n, X, k, 1);
  }
  small_side_product(in.A, long_vectors(in.gU, in.gVh), N);
}

// out (k x p) = Bᵀ x.
template <class T>
void TopkLongSide<T>::small_side_product(const T* A, const LongVectors<T>& x, T* out) {
  const int p = shape.p, k = shape.k;
  const int64_t length = shape.length;
  if (shape.long_rows)
    return long_row_sums<T>({A, p, length}, p, {x.data, x.step, x.apart}, k, out);
  if (x.step == 1) return inner_products<T>({A, length, p}, {x.data, length, k}, length, out, 1, p);
  Scratch<T> copies(k * length);
  for (int j = 0; j < k; ++j) x.copy(j, 0, static_cast<int>(length), copies.get() + j * length);
  inner_products<T>({A, length, p}, {copies.get(), length, k}, length, out, 1, p);
}

// gA = Σ_j t_j P_jᵀ + Q_j r_jᵀ, t_j = f A y_j + Σ_i Q_i C_ij + gQ_j w_j; kLanes rows at a time.
template <class T>
void TopkLongSide<T>::write_by_rows(const TopkInputs<T>& in, const T* result, T* gA) {
  const int p = shape.p, k = shape.k;
  const T *C = result, *weights = C + k * k, *y = weights + k, *r = y + k * p;
  const T f = in.saved[TopkSaved::kScale], *P = small_vectors(in.saved);
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
  Pack<T> block[2 * kLargestKAbove];
  for (int64_t row = 0; row < shape.length; row += kLanes) {
    const int count = static_cast<int>(shape.length - row < kLanes ? shape.length - row : kLanes);
    short_row_dots(in.A + row * p, p, count, p, vectors, terms, block);
    for (int j = 0; j < terms; ++j) (block[j] * Pack<T>(f)).store(left + j * kLanes);
    for (int l = 0; Q.data != nullptr && l < count; ++l) {
      for (int j = 0; j < k; ++j) {
        T sum = gQ.data ? gQ.at(row + l, j) * weights[j] : T(0);
        for (int i = 0; i < k; ++i) sum += Q.at(row + l, i) * C[i * k + j];
        left[j * kLanes + l] += sum;
        left[(k + j) * kLanes + l] = Q.at(row + l, j);
      }
    }
    outer_sums<T>({left, kLanes, 2 * k}, {right, p, 2 * k}, count, p, gA + row * p, p);
  }
}

// gA = Σ_j P_j t_jᵀ + r_j Q_jᵀ with t as above; kChunk columns at a time.
template <class T>
void TopkLongSide<T>::write_by_columns(const TopkInputs<T>& in, const T* result, T* gA) {
  const int p = shape.p, k = shape.k;
  const int64_t length = shape.length, ldl = p + kLanes;
  const T *C = result, *weights = C + k * k, *y = weights + k, *r = y + k * p;
  const T f = in.saved[TopkSaved::kScale], *P = small_vectors(in.saved);
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
    row_sums<T>({in.A + c, length, p}, count, {stacked, 1, p}, terms, right, kChunk);
    for (int j = 0; j < terms; ++j) scale_row(right + j * kChunk, count, f);
    for (int j = 0; Q.data != nullptr && j < k; ++j) {
      T *to = right + j * kChunk, *q = right + (k + j) * kChunk;
      for (int l = 0; gQ.data && l < count; ++l) to[l] += gQ.at(c + l, j) * weights[j];
      Q.copy(j, c, count, q);
    }
    if (Q.data != nullptr)
      row_sums<T>({right + k * kChunk, kChunk, k}, count, {C, k, 1}, k, right, kChunk, true);
    outer_sums<T>({left, ldl, 2 * k}, {right, kChunk, 2 * k}, p, count, gA + c, length);
  }
}

}  // namespace kdops::svd::KDOPS_ISA
