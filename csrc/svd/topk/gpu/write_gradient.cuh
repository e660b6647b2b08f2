// svd_topk_backward's memory, and its last step: gB row by row from what the others have left there.
#pragma once

#include "svd/topk/gpu/topk_kernels.cuh"

namespace kdops::svd::gpu {

template <class T>
struct TopkGradientArguments : BatchShape {
  const T *A = nullptr, *U = nullptr, *S = nullptr, *Vh = nullptr;  // U may be null
  const T* saved = nullptr;
  const T *gU = nullptr, *gS = nullptr, *gVh = nullptr;  // null: zero
  T* gA = nullptr;                                       // in A's order
  int k = 0;
  bool lorentz = false;
};

inline constexpr int topk_gradient_numbers(int p, int k) {
  const int kx = k | 1, kp = (k + 3) / 4 * 4;
  return 3 * kLargestK * kLargestK + 2 * kLargestK + p * kp + p * kx + 4;
}

// What the gradient keeps in shared memory beside the context.
template <class T>
struct GradientContext {
  T *X, *Y, *core;      // kLargestK x kLargestK
  T *inverse, *masked;  // 1/s under the policy, and under "mask"
  T* x_columns;         // x, padded like t.columns
  T* spare;             // p x kx
  T* pool;
  LongSide<const T> U, gl;  // data null: not there; zero
  T up;

  KDOPS_DEVICE GradientContext(const TopkContext<T>& t) {
    T* next = t.pool;
    x_columns = next, next += t.p * t.kp;
    X = next, Y = X + kLargestK * kLargestK, core = Y + kLargestK * kLargestK,
    next = core + kLargestK * kLargestK;
    inverse = next, masked = next + kLargestK, next += 2 * kLargestK;
    spare = next, next += t.p * t.kx;
    pool = next + (4 - t.p * t.kx % 4) % 4;
  }
  KDOPS_DEVICE T* staged(const TopkPlan& plan) const { return pool + plan.rows * plan.stride; }
};

// The coefficients of V and of x in a row of gB: first = U core + W + B x, second = B V.
template <class T>
KDOPS_DEVICE void row_coefficients(const TopkContext<T>& t, const GradientContext<T>& g,
                                   const T* row, int64_t i, T* out) {
  T u[kLargestK], first[kLargestK];
  const bool known = g.U.data != nullptr;
  if (!known) row_product(t, row, t.columns, u);
#pragma unroll
  for (int c0 = 0; c0 < kLargestK; c0 += 4) {
    if (c0 >= t.kp) break;
    T second[4];
#pragma unroll
    for (int c = c0; c < c0 + 4; ++c) {
      const int inside = min(c, t.k - 1);  // beyond k U, core and t.columns count as zero
      if (known) u[c] = c < t.k ? g.U.at(i, inside) : T(0);
      second[c - c0] = c < t.k ? g.up * (known ? u[c] * t.value[inside] : u[c]) : T(0);
      if (!known) u[c] = c < t.k ? u[c] * g.masked[inside] : T(0);
    }
    store_numbers(out + t.kp + c0, second);
  }
  row_product(t, row, g.x_columns, first);
#pragma unroll
  for (int c0 = 0; c0 < kLargestK; c0 += 4) {
    if (c0 >= t.kp) break;
    T sum[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      sum[c] = first[c0 + c] * g.up;
      if (g.gl.data != nullptr && c0 + c < t.k)
        sum[c] = fma(g.up * g.inverse[c0 + c], g.gl.at(i, c0 + c), sum[c]);
    }
#pragma unroll
    for (int a0 = 0; a0 < kLargestK; a0 += 4) {
      if (a0 >= t.kp) break;
#pragma unroll
      for (int a = a0; a < a0 + 4; ++a) {
        T factor[4];
        load_numbers(g.core + a * kLargestK + c0, factor);
#pragma unroll
        for (int c = 0; c < 4; ++c) sum[c] = fma(u[a], factor[c], sum[c]);
      }
    }
    store_numbers(out + c0, sum);
  }
}

// What a thread keeps of gB's factors while it walks along the other side: its own column or row.
// kGroups: of four vectors; kp <= 4 kGroups.
template <int kGroups, class T>
struct OwnFactors {
  T first[4 * kGroups], second[4 * kGroups];

  KDOPS_DEVICE void keep(const T* one, const T* two, int kp) {
#pragma unroll
    for (int c = 0; c < 4 * kGroups; ++c) {
      first[c] = kGroups == 1 || c < kp ? one[c] : T(0);
      second[c] = kGroups == 1 || c < kp ? two[c] : T(0);
    }
  }
  KDOPS_DEVICE T entry(const T* one, const T* two, int kp) const {
    T sum = T(0);
#pragma unroll
    for (int c0 = 0; c0 < 4 * kGroups; c0 += 4) {
      if (kGroups > 1 && c0 >= kp) break;
      T left[4], right[4];
      load_numbers(one + c0, left), load_numbers(two + c0, right);
#pragma unroll
      for (int c = 0; c < 4; ++c)
        sum = fma(first[c0 + c], left[c], fma(second[c0 + c], right[c], sum));
    }
    return sum;
  }
};

// gB, chunk by chunk, into the order of B, so that neighbouring threads store neighbouring numbers;
// a thread computes a few before it stores the first.
template <int kGroups, class T>
KDOPS_DEVICE void write_gradient(const TopkContext<T>& t, const GradientContext<T>& g,
                                 const TopkPlan& plan, const Oriented<T>& B, T* gA) {
  constexpr int kAtOnce = kGroups == 1 ? 4 : 1;
  const int thread = static_cast<int>(threadIdx.x), pair = 2 * t.kp;
  T* rows = g.staged(plan);
#pragma unroll 1
  for (int64_t row0 = 0; row0 < B.length; row0 += plan.rows) {
    const int count = static_cast<int>(min(int64_t(plan.rows), B.length - row0));
    B.stage(g.pool, plan, row0);
    if (thread < count)
      row_coefficients(t, g, g.pool + thread * plan.stride, row0 + thread, rows + thread * pair);
    __syncthreads();
    // a thread's own column of B and all rows, or its own row and all columns
    const bool by_rows = B.long_rows;
    const int across = by_rows ? t.p : count, along = by_rows ? count : t.p;
    const int parts = kTopkThreads / across, place = thread % across, part = thread / across;
    const int step = by_rows ? pair : t.kp;
    const T *one = by_rows ? rows : t.columns, *two = by_rows ? rows + t.kp : g.x_columns;
    const int64_t line = by_rows ? t.p : B.length;
    T* to = gA + (by_rows ? row0 * t.p : row0) + place;
    OwnFactors<kGroups, T> own;
    if (by_rows)
      own.keep(t.columns + place * t.kp, g.x_columns + place * t.kp, t.kp);
    else
      own.keep(rows + place * pair, rows + place * pair + t.kp, t.kp);
#pragma unroll 1
    for (int i = part; part < parts && i < along; i += kAtOnce * parts) {
      T value[kAtOnce];
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q) {
        const int at = min(i + q * parts, along - 1) * step;
        value[q] = own.entry(one + at, two + at, t.kp);
      }
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q)
        if (i + q * parts < along) to[(i + q * parts) * line] = value[q];
    }
    __syncthreads();
  }
}

}  // namespace kdops::svd::gpu
