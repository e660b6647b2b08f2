// svd_topk_backward for a small side above 128: one block per matrix. The formula is that of
// kdops/ops/svd/gradient.py, in the names of cpu/gradient_lanes.h: P the small-side vectors, Q the
// long ones, everything of f A, X = Q^T gQ, Y = P^T gP, N = B^T gQ,
//   core = skew(X + Y) inv(s_j - s_i) + skew(X - Y) inv(s_j + s_i) + diag(gS)
//   x = resolvent of (I - P P^T)(gP + N inv(s)),  gB = (B x + Q core + (gQ - Q X) inv(s)) P^T
//                                                      + Q diag(s) x^T
#pragma once

#include "svd/topk/gpu/backward_kernels.cuh"
#include "svd/topk/gpu/large_long.cuh"
#include "svd/topk/gpu/large_resolvent.cuh"
#include "svd/topk/gpu/large_ritz.cuh"

namespace kdops::svd::gpu {

inline constexpr int64_t large_gradient_numbers(int p, int k, int64_t length) {
  return large_resolvent_numbers(p, k) + int64_t(3) * p * k + 2 * k * length;
}

template <class T>
struct LargeGradient {
  const LargeContext<T>& t;
  Oriented<T> B;  // of f A
  const T* saved;
  LongSide<const T> Q, gQ;  // data null: not there; zero
  const T *gP, *gS;         // null: zero
  bool gP_by_rows, lorentz;
  T f;
  // k x p; k x p, and right behind it 2 k x length; of the resolvent; gA, which is written last
  T *x, *r, *rows, *work, *gA;
  T *value, *weight, *X, *Y, *core;  // shared: s, f inv(s); k x k matrices

  KDOPS_DEVICE const T* vectors() const { return saved + LargeSaved{t.p, t.k}.vectors_at(); }
  KDOPS_DEVICE auto long_operand(const LongSide<const T>& side) const {
    return Operand{t.k, side.wide,
                   [=](int64_t c, int64_t i) { return side.at(i, static_cast<int>(c)); }};
  }
};

// x loses its parts along the rows of P.
template <class T>
KDOPS_DEVICE void remove_vectors(const LargeGradient<T>& g) {
  const int p = g.t.p, k = g.t.k;
  const T* P = g.vectors();
  small_product(vectors_operand(g.x, p, k), vectors_operand(P, p, k), p, g.Y);
  for (int at = static_cast<int>(threadIdx.x); at < p * k; at += kTopkThreads) {
    T sum = g.x[at];
    for (int j = 0; j < k; ++j)
      sum = fma(-g.Y[at / p * kSquareStride + j], P[j * int64_t(p) + at % p], sum);
    g.x[at] = sum;
  }
  __syncthreads();
}

// X, Y and core, in the units of A; core takes - X inv(s) along, which is W's part of Q.
template <class T>
KDOPS_DEVICE void large_core(const LargeGradient<T>& g) {
  const int p = g.t.p, k = g.t.k, thread = static_cast<int>(threadIdx.x);
  for (int at = thread; at < kSquareNumbers; at += kTopkThreads) g.X[at] = g.Y[at] = T(0);
  __syncthreads();
  if (g.gQ.data != nullptr)
    small_product(g.long_operand(g.Q), g.long_operand(g.gQ), g.B.length, g.X);
  if (g.gP != nullptr)
    small_product(vectors_operand(g.vectors(), p, k), vectors_operand(g.x, p, k), p, g.Y);
  const PolicyInverse<T> inverse(g.value[0], p, g.lorentz);
#pragma unroll 1
  for (int at = thread; at < k * k; at += kTopkThreads) {
    const int i = at / k, j = at % k, here = i * kSquareStride + j, there = j * kSquareStride + i;
    const T left = (g.X[here] - g.X[there]) / 2, right = (g.Y[here] - g.Y[there]) / 2;
    T entry = g.f * core_pair(left, right, g.value[i], g.value[j], inverse).here;
    if (i == j) entry = g.gS != nullptr ? g.gS[i] : T(0);
    // not by the weight, f / s, which may leave the range where X is zero
    g.core[here] = fma(-g.f * g.X[here], inverse(g.value[j]), entry);
  }
  __syncthreads();
}

// x: gP on entry, the solutions on return.
template <class T>
KDOPS_DEVICE void large_solutions(const LargeGradient<T>& g) {
  const int p = g.t.p, k = g.t.k;
  const PolicyInverse<T> inverse(g.value[0], p, g.lorentz);
  if (g.gQ.data != nullptr)
    block_product<FlatTile>(g.long_operand(g.gQ), columns_of(g.B), g.B.length, g.t.pool,
                            [&](int64_t c, int64_t j, T sum) {
                              T& entry = g.x[c * p + j];
                              entry = fma(sum, inverse(g.value[c]), entry);
                            });
  remove_vectors(g);
  bool any = false;
#pragma unroll 1
  for (int at = static_cast<int>(threadIdx.x); at < p * k; at += kTopkThreads)
    any = any || g.x[at] != T(0);
  if (!block_any(any)) return;
  resolve_rows(g.t, g.saved, g.value, g.lorentz, g.x, g.work, g.gA, g.r);
  remove_vectors(g);
}

// x into the units of A, f x, and r = f s x. Without Q, r = f x, and Q's part of gB, which is B P
// inv(s) core there, moves into x.
template <class T>
KDOPS_DEVICE void to_units_of_A(const LargeGradient<T>& g) {
  const int p = g.t.p, k = g.t.k;
  const bool have_long = g.Q.data != nullptr;
  const PolicyInverse<T> inverse(g.value[0], p, g.lorentz);
  const T* P = g.vectors();
#pragma unroll 1
  for (int at = static_cast<int>(threadIdx.x); at < p * k; at += kTopkThreads) {
    const int j = at / p;
    T y = g.x[at] * g.f;
    g.r[at] = have_long ? g.value[j] * y : y;
    for (int i = 0; !have_long && i < k; ++i)
      y = fma(g.core[i * kSquareStride + j] * inverse(g.value[i]), P[i * int64_t(p) + at % p], y);
    g.x[at] = y;
  }
  __syncthreads();
}

// rows: t_j = f A y_j + sum of Q_i core_ij + gQ_j weight_j, then, without Q, f A P_j = Q_j s_j.
template <class T>
KDOPS_DEVICE void long_rows_of_gradient(const LargeGradient<T>& g) {
  const int p = g.t.p, k = g.t.k;
  const int64_t length = g.B.length;
  const bool have_long = g.Q.data != nullptr;
  const T* P = g.vectors();
  const auto row = [&](int c, int j) { return c < k ? g.x[c * p + j] : P[(c - k) * p + j]; };
  few_times_long(g.B, have_long ? k : 2 * k, row, g.t.pool, [&](int c, int64_t i, T sum) {
    if (have_long) {
      for (int q = 0; q < k; ++q) sum = fma(g.Q.at(i, q), g.core[q * kSquareStride + c], sum);
      if (g.gQ.data != nullptr) sum = fma(g.gQ.at(i, c), g.weight[c], sum);
    }
    g.rows[c * length + i] = sum;
  });
}

// gB = sum of t_j P_j^T + Q_j r_j^T, as A lies.
template <class T>
KDOPS_DEVICE void large_gradient(const LargeGradient<T>& g) {
  const int p = g.t.p, k = g.t.k;
  const int64_t length = g.B.length;
  const T* P = g.vectors();
  const bool by_rows = g.B.long_rows;
  const auto of_long = [&](int64_t i, int64_t l) {
    if (l < k || g.Q.data == nullptr) return g.rows[l * length + i];
    return g.Q.at(i, static_cast<int>(l) - k);
  };
  const auto of_small = [&](int64_t j, int64_t l) {
    return l < k ? P[l * p + j] : g.r[(l - k) * p + j];
  };
  // neighbouring threads write neighbouring numbers: those of the right operand
  const Operand left{by_rows ? length : p, false, [&](int64_t i, int64_t l) {
                       return by_rows ? of_long(i, l) : of_small(i, l);
                     }};
  const Operand right{by_rows ? p : length, false, [&](int64_t i, int64_t l) {
                        return by_rows ? of_small(i, l) : of_long(i, l);
                      }};
  block_product<SquareTile>(left, right, 2 * k, g.t.pool,
                            [&](int64_t i, int64_t j, T sum) { g.gA[i * right.count + j] = sum; });
}

// Grid: one block per matrix. workspace: large_gradient_numbers() each.
template <class T>
__global__ void __launch_bounds__(kTopkThreads, 1)
    large_backward_kernel(TopkGradientArguments<T> args, T* workspace) {
  KDOPS_DYNAMIC_SHARED(T, shared);
  const int64_t index = blockIdx.x, matrix = args.m * args.n, length = args.length();
  const int thread = static_cast<int>(threadIdx.x), k = args.k, p = args.p();
  const bool wide = args.wide();
  LargeContext<T> t(shared, p, k);
  const T* saved = args.saved + index * LargeSaved{p, k}.size();
  const T f = saved[LargeSaved::kScale];
  T* gA = args.gA + index * matrix;
  if (!(f == f)) {
#pragma unroll 1
    for (int64_t i = thread; i < matrix; i += kTopkThreads) gA[i] = kNaN<T>;
    return;
  }
  const auto side = [&](const T* from, int64_t size) {
    return from ? from + index * size : nullptr;
  };
  const T *U = side(args.U, args.m * k), *Vh = side(args.Vh, args.n * k);
  const bool zero = args.S[index * k] < kLeastUnit<T>;
  const T* gU = zero ? nullptr : side(args.gU, args.m * k);
  const T* gVh = zero ? nullptr : side(args.gVh, args.n * k);
  workspace += index * large_gradient_numbers(p, k, length);
  T *x = workspace, *r = x + int64_t(p) * k, *rows = r + int64_t(p) * k;
  T *square = t.pool + large_gradient_pool_numbers<T>(p), *value = t.low;
  const LargeGradient<T> g{.t = t,
                           .B = {args.A + index * matrix, length, p, args.long_rows(), f},
                           .saved = saved,
                           .Q = {wide ? Vh : U, length, k, wide},
                           .gQ = {wide ? gVh : gU, length, k, wide},
                           .gP = wide ? gU : gVh,
                           .gS = side(args.gS, k),
                           .gP_by_rows = !wide,
                           .lorentz = args.lorentz,
                           .f = f,
                           .x = x,
                           .r = r,
                           .rows = rows,
                           .work = rows + 2 * k * length,
                           .gA = gA,
                           .value = value,
                           .weight = t.high,
                           .X = square,
                           .Y = square + kSquareNumbers,
                           .core = square + 2 * kSquareNumbers};
  if (thread < k) {
    const T s = args.S[index * k + thread] * f, unit = args.S[index * k] * f;
    value[thread] = s;
    g.weight[thread] = f * PolicyInverse<T>(unit, p, args.lorentz)(s);
  }
#pragma unroll 1
  for (int at = thread; at < p * k; at += kTopkThreads) {
    const int c = at / p, j = at % p;
    x[at] = g.gP == nullptr ? T(0) : g.gP_by_rows ? g.gP[at] : g.gP[j * k + c];
  }
  __syncthreads();
  large_core(g);
  t.p = forgotten(p);
  large_solutions(g);
  t.p = forgotten(p);
  to_units_of_A(g);
  long_rows_of_gradient(g);
  large_gradient(g);
}

}  // namespace kdops::svd::gpu
