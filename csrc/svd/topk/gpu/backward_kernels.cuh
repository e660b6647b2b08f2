// svd_topk_backward: gA from the k triples and the forward's `saved`, one block per matrix, one
// launch. The formula, derived in kdops/ops/svd/gradient.py, for the oriented B = U diag(s) V^T +
// .. (U long, V small side; gl, gs the cotangents of U and V):
//   X = U^T gl, Y = V^T gs, core = (a + b) / (s_j - s_i) + (a - b) / (s_j + s_i) + diag(gS)
//   W = (gl - U X) diag(1/s),  b = P (gs - V Y + B^T W),  x = resolvent b,  P = I - V V^T
//   gB = [U core + W + B x] V^T + [B V] x^T
// B is read once if U has no cotangent, twice otherwise; gB is written once.
#pragma once

#include "svd/topk/gpu/resolvent.cuh"
#include "svd/topk/gpu/write_gradient.cuh"

namespace kdops::svd::gpu {

// t.x += B^T R for the long-side rows R that row(i, out) computes.
template <class T, class Row>
KDOPS_DEVICE void add_transposed_product(const TopkContext<T>& t, const GradientContext<T>& g,
                                         const TopkPlan& plan, const Oriented<T>& B,
                                         const Row& row) {
  const int thread = static_cast<int>(threadIdx.x), parts = kTopkThreads / t.p;
  const int j = thread % t.p, part = thread / t.p;
  T* rows = g.staged(plan);
  T sum[kLargestK];
#pragma unroll
  for (int c = 0; c < kLargestK; ++c) sum[c] = T(0);
#pragma unroll 1
  for (int64_t row0 = 0; row0 < B.length; row0 += plan.rows) {
    for (int at = thread; at < plan.rows * t.kp; at += kTopkThreads) {
      const int c = at % t.kp;
      const int64_t i = row0 + at / t.kp;
      rows[at] = i < B.length && c < t.k ? row(i, c) : T(0);
    }
    B.stage(g.pool, plan, row0);
    const int count = static_cast<int>(min(int64_t(plan.rows), B.length - row0));
    const int end = part < parts ? count : 0;
#pragma unroll
    for (int c0 = 0; c0 < kLargestK; c0 += 4) {
      if (c0 >= t.kp) break;
#pragma unroll 4
      for (int i = part; i < end; i += parts) {
        const T entry = g.pool[i * plan.stride + j];
        T factor[4];
        load_numbers(rows + i * t.kp + c0, factor);
#pragma unroll
        for (int c = 0; c < 4; ++c) sum[c0 + c] = fma(entry, factor[c], sum[c0 + c]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int c = 0; c < kLargestK; ++c)
    if (c < t.kp) g.pool[thread * t.kp + c] = sum[c];
  __syncthreads();
  for (int at = thread; at < t.p * t.k; at += kTopkThreads) {
    const int i = at / t.k, c = at % t.k;
    T total = t.x[i * t.kx + c];
    for (int q = 0; q < parts; ++q) total += g.pool[(q * t.p + i) * t.kp + c];
    t.x[i * t.kx + c] = total;
  }
  __syncthreads();
}

// V into t.columns: copied, or V = B^T U / s for a wide A whose U was not asked for.
template <class T>
KDOPS_DEVICE void load_small_side(const TopkContext<T>& t, const GradientContext<T>& g,
                                  const TopkPlan& plan, const Oriented<T>& B, const T* small) {
  for (int at = static_cast<int>(threadIdx.x); at < t.p * t.k; at += kTopkThreads) {
    const int i = at / t.k, c = at % t.k;
    T value = T(0);
    if (small != nullptr) value = g.U.wide ? small[i * t.k + c] : small[c * t.p + i];
    t.x[i * t.kx + c] = value;
  }
  __syncthreads();
  if (small == nullptr)
    add_transposed_product(t, g, plan, B,
                           [&](int64_t i, int c) { return g.U.at(i, c) * g.masked[c]; });
  spread_columns(t, t.columns);
}

// X, Y, and core; then core - up X / s, which takes W's U-part along.
template <class T>
KDOPS_DEVICE void coefficient_table(const TopkContext<T>& t, const GradientContext<T>& g,
                                    const T* gS, const T* small_cotangent, bool lorentz) {
  const int thread = static_cast<int>(threadIdx.x), a = thread / kLargestK, b = thread % kLargestK;
  g.X[thread] = T(0), g.Y[thread] = T(0);  // kLargestK^2 threads
  __syncthreads();
  if (g.gl.data != nullptr)
    inner_products(
        t, g.U.length, [&](int64_t i, int c) { return g.U.at(i, c); },
        [&](int64_t i, int c) { return g.gl.at(i, c); }, false, g.X);
  if (small_cotangent != nullptr)
    inner_products(
        t, t.p, [&](int64_t i, int c) { return t.columns[i * t.kp + c]; },
        [&](int64_t i, int c) { return t.x[i * t.kx + c]; }, false, g.Y);
  const int i = a, j = b, other = b * kLargestK + a;
  T entry = T(0);
  if (i < t.k && j < t.k) {
    const T left = (g.X[thread] - g.X[other]) / 2, right = (g.Y[thread] - g.Y[other]) / 2;
    const PolicyInverse<T> inverse(t.value[0], t.p, lorentz);
    if (i != j) entry = g.up * core_pair(left, right, t.value[i], t.value[j], inverse).here;
    if (i == j && gS != nullptr) entry = gS[i];
    entry -= g.up * g.X[thread] * g.inverse[j];
  }
  g.core[thread] = entry;
  __syncthreads();
}

// t.x (holding gs) becomes x, spread to g.x_columns.
template <class T>
KDOPS_DEVICE void solve_small_side(const TopkContext<T>& t, const GradientContext<T>& g,
                                   const TopkPlan& plan, const Oriented<T>& B, const T* saved,
                                   bool lorentz, T* factors) {
  const bool complement = t.k < t.p;
  if (g.gl.data != nullptr && complement)
    add_transposed_product(t, g, plan, B, [&](int64_t i, int c) {
      T sum = g.gl.at(i, c);
      for (int a = 0; a < t.k; ++a) sum = fma(-g.U.at(i, a), g.X[a * kLargestK + c], sum);
      return sum * g.inverse[c];
    });
  if (complement) {
    project_out(t);
    if (TopkSaved::took(saved, TopkRoute::dense))
      resolve_dense(t, saved, lorentz, g.spare);
    else
      resolve_tridiagonal(t, plan, saved, factors, g.pool, g.spare);
    project_out(t);
  } else {
    for (int at = static_cast<int>(threadIdx.x); at < t.p * t.kx; at += kTopkThreads)
      t.x[at] = T(0);
    __syncthreads();
  }
  spread_columns(t, g.x_columns);
}

// Grid: one block per matrix. workspace: factors of each matrix where they are not in shared
// memory.
template <class T>
__global__ void __launch_bounds__(kTopkThreads, 1)
    svd_topk_backward_kernel(TopkGradientArguments<T> args, TopkPlan plan, T* workspace) {
  KDOPS_DYNAMIC_SHARED(T, shared);
  const int64_t index = blockIdx.x, matrix = args.m * args.n;
  const int thread = static_cast<int>(threadIdx.x), k = args.k;
  const bool wide = args.wide();
  const TopkContext<T> t(shared, args.p(), k);
  GradientContext<T> g(t);
  const T* saved = args.saved + index * TopkSaved{t.p, k}.size();
  g.up = saved[TopkSaved::kScale];
  T* gA = args.gA + index * matrix;
  if (!(g.up == g.up)) {
    for (int64_t i = thread; i < matrix; i += kTopkThreads) gA[i] = kNaN<T>;
    return;
  }
  const Oriented<T> B{args.A + index * matrix, args.length(), t.p, args.long_rows(), g.up};
  const auto side = [&](const T* x, int64_t size) { return x ? x + index * size : nullptr; };
  const T *U = side(args.U, args.m * k), *Vh = side(args.Vh, args.n * k);
  const bool zero = args.S[index * k] < kLeastUnit<T>;
  const T* gU = zero ? nullptr : side(args.gU, args.m * k);
  const T* gVh = zero ? nullptr : side(args.gVh, args.n * k);
  g.U = {wide ? Vh : U, B.length, k, wide};
  g.gl = {wide ? gVh : gU, B.length, k, wide};
  const T* small_cotangent = wide ? gU : gVh;
  if (thread < k) {
    const T s = args.S[index * k + thread] * g.up, unit = args.S[index * k] * g.up;
    t.value[thread] = s;
    g.inverse[thread] = PolicyInverse<T>(unit, t.p, args.lorentz)(s);
    g.masked[thread] = PolicyInverse<T>(unit, t.p, false)(s);
  }
  __syncthreads();
  load_small_side(t, g, plan, B, wide ? U : Vh);
  for (int at = thread; at < t.p * k; at += kTopkThreads) {
    const int i = at / k, c = at % k;
    T value = T(0);
    if (small_cotangent != nullptr)
      value = wide ? small_cotangent[i * k + c] : small_cotangent[c * t.p + i];
    t.x[i * t.kx + c] = value;
  }
  __syncthreads();
  const T* gS = side(args.gS, k);
  coefficient_table(t, g, gS, small_cotangent, args.lorentz);
  if (!plan.factors_shared) workspace += index * 4 * t.p * k;
  solve_small_side(t, g, plan, B, saved, args.lorentz, workspace);
  if (t.kp == 4)
    write_gradient<1>(t, g, plan, B, gA);
  else
    write_gradient<kLargestK / 4>(t, g, plan, B, gA);
}

}  // namespace kdops::svd::gpu
