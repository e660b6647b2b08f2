// From the small-side vectors of one matrix to its triples: the long side W = A P with
// Rayleigh-Ritz, which makes it orthonormal although the Gram matrix squared the condition, signs
// and outputs.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "common/simd/scratch.h"
#include "svd/full/cpu/signs.h"
#include "svd/topk/cpu/dense.h"
#include "svd/topk/cpu/layout.h"
#include "svd/topk/cpu/refine.h"

namespace kdops::svd::KDOPS_ISA {

template <class T>
struct TopkFinish {
  static constexpr int kLanes = Pack<T>::kLanes;

  TopkShape shape;
  bool canonical;
  Scratch<T> image, vectors;

  TopkFinish(const TopkShape& of, bool canonical_signs)
      : shape(of), canonical(canonical_signs), image(of.k * of.length), vectors(2 * of.k * of.p) {}

  void finish(const T* A, const TopkOutputs<T>& out, T f, T* P, const T* sigma, int before = 0);
  void write(const TopkOutputs<T>& out, T f, const T* sigma, T* P, T* W, bool have_image);
  void fill_nan(const TopkOutputs<T>& out);
};

// P (k x p): the small-side vectors of f A; sigma: the roots of the eigenvalues, of which the first
// `before` are not of the matrix that the gradient solves with.
template <class T>
void TopkFinish<T>::finish(const T* A, const TopkOutputs<T>& out, T f, T* P, const T* sigma,
                           int before) {
  const int p = shape.p, k = shape.k;
  T refined[kLargestKAbove];
  for (int i = 0; i < k; ++i) refined[i] = sigma[i];
  const bool have_image = !shape.tall || out.U != nullptr;
  if (have_image) {
    // f goes into the vectors, so that W is of size one whatever A's scale.
    T *scaled = vectors.get(), *interleaved = scaled + k * p;
    for (int i = 0; i < k * p; ++i) scaled[i] = P[i] * f;
    if (shape.long_rows) {
      interleave_vectors(scaled, p, k, p, interleaved);
      Pack<T> block[kLargestKAbove];
      for (int64_t r = 0; r < shape.length; r += kLanes) {
        const int rows = static_cast<int>(shape.length - r < kLanes ? shape.length - r : kLanes);
        short_row_dots(A + r * p, p, rows, p, interleaved, k, block);
        for (int j = 0; j < k; ++j)
          block[j].store_partial(image.get() + j * shape.length + r, rows);
      }
    } else {
      const int64_t length = shape.length;
      row_sums<T>({A, length, p}, length, {scaled, 1, p}, k, image.get(), length);
    }
    rayleigh_ritz(image.get(), shape.length, shape.length, P, p, k, refined);
  }
  T doubt(0);
  for (int i = before; i < k; ++i)
    doubt = max(doubt, std::fabs(refined[i] * refined[i] - sigma[i] * sigma[i]));
  out.saved[TopkSaved::kDoubt] = doubt;
  write(out, f, refined, P, image.get(), have_image);
  T* kept = out.saved + shape.vectors_at();
  if (P != kept) std::memcpy(kept, P, sizeof(T) * k * p);
}

// Signs, then the outputs: P are the small-side vectors, W the long-side ones, both as rows.
template <class T>
void TopkFinish<T>::write(const TopkOutputs<T>& out, T f, const T* sigma, T* P, T* W,
                          bool have_image) {
  const int p = shape.p, k = shape.k;
  const int64_t length = shape.length;
  for (int i = 0; i < k; ++i) {
    out.S[i] = sigma[i] / f;
    T* v = shape.tall ? P + i * p : W + i * length;
    if (!canonical || canonical_sign(v, shape.n) > T(0)) continue;
    scale_row(P + i * p, p, T(-1));
    if (have_image) scale_row(W + i * length, length, T(-1));
  }
  const T *right = shape.tall ? P : W, *left = shape.tall ? W : P;
  std::memcpy(out.Vh, right, sizeof(T) * k * shape.n);
  if (out.U == nullptr) return;
  for (int64_t r = 0; r < shape.m; ++r)
    for (int i = 0; i < k; ++i) out.U[r * k + i] = left[i * shape.m + r];
}

template <class T>
void TopkFinish<T>::fill_nan(const TopkOutputs<T>& out) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  for (int64_t i = 0; out.U && i < shape.m * shape.k; ++i) out.U[i] = nan;
  for (int i = 0; i < shape.k; ++i) out.S[i] = nan;
  for (int64_t i = 0; i < shape.k * shape.n; ++i) out.Vh[i] = nan;
}

}  // namespace kdops::svd::KDOPS_ISA
