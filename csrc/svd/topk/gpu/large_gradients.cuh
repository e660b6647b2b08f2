// The resolvent of large_resolvent.cuh by conjugate gradients, where the forward kept the Gram
// matrix itself: cpu/complement.h on a block. A warp has a right-hand side, all warps the products.
#pragma once

#include "common/shared/power_of_two.h"
#include "svd/shared/krylov_rules.h"
#include "svd/shared/policy.h"
#include "svd/topk/gpu/large_product.cuh"

namespace kdops::svd::gpu {

inline constexpr int kMostKept = kLargestKrylovK + kExtraPairs;

// x, of one warp, loses its parts along `count` orthonormal rows; these go to parts.
template <class T>
KDOPS_DEVICE void clear_of_rows(const T* rows, int count, int p, T* x, T* parts) {
#pragma unroll 1
  for (int first = 0; first < count; first += kTogether) {
    const T* row[kTogether];
    T sum[kTogether];
#pragma unroll
    for (int q = 0; q < kTogether; ++q)
      row[q] = rows + min(first + q, count - 1) * p, sum[q] = T(0);
#pragma unroll 4
    for (int i = lane_id(); i < p; i += kWarp)
#pragma unroll
      for (int q = 0; q < kTogether; ++q) sum[q] = fma(row[q][i], x[i], sum[q]);
    const T total = scatter_sum(sum);
#pragma unroll
    for (int q = 0; q < kTogether; ++q) {
      const T part = shuffle(total, q * (kWarp / kTogether));
      sum[q] = first + q < count ? part : T(0);
      if (lane_id() == 0 && first + q < count) parts[first + q] = part;
    }
#pragma unroll 4
    for (int i = lane_id(); i < p; i += kWarp) {
      T entry = x[i];
#pragma unroll
      for (int q = 0; q < kTogether; ++q) entry = fma(-sum[q], row[q][i], entry);
      x[i] = entry;
    }
  }
}

// What the forward kept: the Gram matrix, `count` leading vectors of it as rows, and the values of
// those beyond the k.
template <class T>
struct KeptPairs {
  const T *G, *rows, *values;
  int count;
};

// The right-hand side of a warp on its way.
template <class T>
struct GradientStep {
  T *x, *r, *direction, *q;  // the solution, what is left of b; p numbers each
  T shift, square, goal;     // s^2, |r|^2, and the |r|^2 that is good enough

  KDOPS_DEVICE bool live() const { return square > goal; }
};

// One step, after the product. False in a direction in which s^2 - G is not positive.
template <class T>
KDOPS_DEVICE bool take_step(GradientStep<T>& step, const T* D, int count, int p, T* parts) {
#pragma unroll 4
  for (int i = lane_id(); i < p; i += kWarp)
    step.q[i] = fma(step.shift, step.direction[i], -step.q[i]);
  clear_of_rows(D, count, p, step.q, parts);
  T both[2] = {T(0), T(0)};
#pragma unroll 4
  for (int i = lane_id(); i < p; i += kWarp) {
    const T d = step.direction[i];
    both[0] = fma(d, step.q[i], both[0]), both[1] = fma(d, d, both[1]);
  }
  const T total = scatter_sum(both), curvature = shuffle(total, 0);
  const T length = shuffle(total, kWarp / 2);
  if (!is_positive(curvature, length, p)) return false;
  const T forth = step.square / curvature;
  T square = T(0);
#pragma unroll 4
  for (int i = lane_id(); i < p; i += kWarp) {
    step.x[i] = fma(forth, step.direction[i], step.x[i]);
    const T r = fma(-forth, step.q[i], step.r[i]);
    step.r[i] = r;
    square = fma(r, r, square);
  }
  square = warp_sum(square);
  const T along = square / step.square;
  step.square = square;
#pragma unroll 4
  for (int i = lane_id(); i < p; i += kWarp)
    step.direction[i] = fma(along, step.direction[i], step.r[i]);
  return true;
}

// The factor, a power of two, that brings the largest of a warp's p numbers to about one.
template <class T>
KDOPS_DEVICE T scale_of_row(const T* row, int p) {
  T largest = T(0);
  for (int i = lane_id(); i < p; i += kWarp) largest = max(largest, abs(row[i]));
  return row_scale(warp_max(largest));
}

// x: b on entry, clear of the first k of the kept rows; its solution on return, with what the others
// have of it by their values and the policy. False, and x is as it was, where the iteration does not
// get there. The squares of b neither vanish nor overflow, however large it is: it is scaled.
// work: 4 k p numbers.
template <class T>
KDOPS_DEVICE bool conjugate_gradients(const LargeContext<T>& t, const KeptPairs<T>& kept,
                                      const T* value, const PolicyInverse<T>& inverse, T* x,
                                      T* work) {
  const int p = t.p, k = t.k, c = warp_id(), count = kept.count;
  const T* D = kept.rows;
  const bool own = c < k;
  T *directions = work + 2 * k * p, *images = directions + k * p, *b = x + c * p;
  T *own_parts = t.line + c * 2 * kMostKept, *spare = own_parts + kMostKept;
  GradientStep<T> step{
      work + c * p, work + (k + c) * p, directions + c * p, images + c * p, T(0), T(0), T(0)};
  T scale = T(1);
  if (own) {
    scale = scale_of_row(b, p);
    for (int i = lane_id(); i < p; i += kWarp) {
      step.r[i] = scale * b[i];
      step.x[i] = T(0) * step.r[i];  // NaN stays
    }
    clear_of_rows(D, count, p, step.r, own_parts);
    for (int i = lane_id(); i < p; i += kWarp) {
      step.direction[i] = step.r[i];
      step.square = fma(step.r[i], step.r[i], step.square);
    }
    step.square = warp_sum(step.square), step.shift = value[c] * value[c];
    step.goal = step.square * kSolved<T> * kSolved<T>;
  }
  bool good = true;
#pragma unroll 1
  for (int products = 0; block_any(good && step.live()); ++products) {
    if (products == kMostProducts) return false;
    multiply_rows(kept.G, p, directions, k, t.pool,
                  [&](int j, int i, T sum) { images[i * p + j] = sum; });
    if (own && good && step.live()) good = take_step(step, D, count, p, spare);
  }
  if (!block_all(good)) return false;
  if (own) {
    clear_of_rows(D, count, p, step.x, spare);
    for (int i = lane_id(); i < p; i += kWarp) {
      T sum = step.x[i];
      for (int j = k; j < count; ++j) {
        const T factor = inverse.of_squares(value[c], kept.values[j - k]);
        sum = fma(own_parts[j] * factor, D[j * p + i], sum);
      }
      b[i] = sum / scale;
    }
  }
  __syncthreads();
  return true;
}

}  // namespace kdops::svd::gpu
