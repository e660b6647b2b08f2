// The eigenproblem of the Gram matrix, in one block: Gram matrix, Householder tridiagonalisation,
// the k largest eigenvalues by Sturm multisection, reflectors applied to vectors. Only the part of
// the spectrum that is asked for is ever computed: O(p^2 k) after the 4/3 p^3 of the reduction.
#pragma once

#include "svd/shared/reflector.h"
#include "svd/shared/sturm.h"
#include "svd/topk/gpu/context.cuh"

namespace kdops::svd::gpu {
using namespace kdops::gpu;

template <class T>
KDOPS_DEVICE void load_eight(const T* from, T (&to)[8]) {
  constexpr int kWidth = 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < 8; i += kWidth) {
    const auto part = *reinterpret_cast<const Vec<T, kWidth>*>(from + i);
#pragma unroll
    for (int q = 0; q < kWidth; ++q) to[i + q] = part.at[q];
  }
}

// Adds the tiles of `splits` neighbouring threads; a thread keeps 64 / splits of the sums, from
// tile[0] on, and the place of the first of them is returned.
template <int kHalf, class T>
KDOPS_DEVICE int fold_tile(T (&tile)[64], int splits) {
  if constexpr (kHalf >= 2) {
    constexpr int kBits = 32 / kHalf;
    if (kBits >= splits) return 0;
    const bool upper = threadIdx.x & kBits;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const T keep = upper ? tile[i + kHalf] : tile[i], send = upper ? tile[i] : tile[i + kHalf];
      tile[i] = keep + shuffle_xor(send, kBits);
    }
    return (upper ? kHalf : 0) + fold_tile<kHalf / 2>(tile, splits);
  }
  return 0;
}

// gram (p x p, rows ld apart) = B^T B. `splits` neighbouring threads share an 8 x 8 tile of the
// lower half and take every splits-th row; their sums meet by shuffles, halving what each holds.
template <class T>
KDOPS_DEVICE void gram_matrix(const TopkContext<T>& t, const TopkPlan& plan, const Oriented<T>& B,
                              T* gram, int ld) {
  const int tiles = (t.p + kGramTile - 1) / kGramTile, thread = static_cast<int>(threadIdx.x);
  const int mine = thread / plan.splits, split = thread % plan.splits;
  int tile_row = 0;
  while ((tile_row + 1) * (tile_row + 2) / 2 <= mine) ++tile_row;
  const int tile_column = mine - tile_row * (tile_row + 1) / 2;
  const bool active = tile_row < tiles;
  T sum[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) sum[i] = T(0);
#pragma unroll 1
  for (int64_t row0 = 0; row0 < B.length; row0 += plan.rows) {
    B.stage(t.pool, plan, row0);
#pragma unroll 1
    for (int i = split; active && i < plan.rows; i += plan.splits) {
      T a[8], b[8];
      load_eight(t.pool + i * plan.stride + tile_row * kGramTile, a);
      load_eight(t.pool + i * plan.stride + tile_column * kGramTile, b);
#pragma unroll
      for (int q = 0; q < 64; ++q) sum[q] = fma(a[q / 8], b[q % 8], sum[q]);
    }
    __syncthreads();
  }
  const int offset = fold_tile<32>(sum, plan.splits);
#pragma unroll
  for (int q = 0; q < 64; ++q) {
    const int i = tile_row * kGramTile + (offset + q) / 8;
    const int j = tile_column * kGramTile + (offset + q) % 8;
    if (!active || q >= 64 / plan.splits || i >= t.p || j > i) continue;
    gram[i * ld + j] = sum[q];
    gram[j * ld + i] = sum[q];
  }
  __syncthreads();
}

// G = Q T Q^T in place: d, e of T; reflector k (leading 1 understood) below the diagonal of column
// k, its factor in tau. Row k serves as the column, so that nobody reads what is overwritten.
template <class T>
KDOPS_DEVICE void tridiagonalise(const TopkContext<T>& t, T* g, int ld) {
  const int thread = static_cast<int>(threadIdx.x), p = t.p;
  const int parts = min(kTopkThreads / p, 8), row = thread % p, part = thread / p;
  T *partial = t.line, *w = t.x;  // x is not in use yet
#pragma unroll 1
  for (int k = 0; k + 2 < p; ++k) {
    const T* column = g + k * ld;
    T rest = T(0);
    for (int i = k + 2 + lane_id(); i < p; i += kWarp) rest = fma(column[i], column[i], rest);
    rest = warp_sum(rest);
    const Reflector<T> h = make_reflector(column[k + 1], rest);
    const bool active = part < parts && row > k;
    const auto v = [&](int i) { return i == k + 1 ? T(1) : column[i] * h.scale; };
    if (active) {
      T dot = T(0);
      for (int j = k + 2 + part; j < p; j += parts) dot = fma(g[row * ld + j], column[j], dot);
      dot *= h.scale;
      partial[part * p + row] = part == 0 ? dot + g[row * ld + k + 1] : dot;
    }
    __syncthreads();
    if (active && part == 0) {
      T sum = T(0);
      for (int q = 0; q < parts; ++q) sum += partial[q * p + row];
      w[row] = h.tau * sum;
    }
    if (thread == 0) t.d[k] = g[k * ld + k], t.e[k] = h.beta, t.tau[k] = h.tau;
    __syncthreads();
    T dot = T(0);
    for (int i = k + 1 + lane_id(); i < p; i += kWarp) dot = fma(w[i], v(i), dot);
    const T shift = T(0.5) * h.tau * warp_sum(dot);
    if (active) {
      const T vi = v(row), wi = w[row] - shift * vi;
      for (int j = k + 1 + part; j < p; j += parts) {
        const T vj = v(j), wj = w[j] - shift * vj;
        g[row * ld + j] -= fma(vi, wj, wi * vj);
      }
      if (part == 0 && row > k + 1) g[row * ld + k] = vi;
    }
    __syncthreads();
  }
  if (thread == 0) {
    if (p > 1) t.d[p - 2] = g[(p - 2) * ld + p - 2], t.e[p - 2] = g[(p - 1) * ld + p - 2];
    t.d[p - 1] = g[(p - 1) * ld + p - 1];
  }
  __syncthreads();
}

// Vector c of X becomes Q x (or Q^T x): a warp per vector, reflectors from g or from `saved`.
template <class T>
KDOPS_DEVICE void apply_reflectors(const TopkContext<T>& t, const T* g, int ld, bool transposed) {
#pragma unroll 1
  for (int c = warp_id(); c < t.k; c += kTopkThreads / kWarp) {
    T entry[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int i = lane_id() + r * kWarp;
      entry[r] = i < t.p ? t.x[i * t.kx + c] : T(0);
    }
#pragma unroll 1
    for (int step = 0; step + 2 < t.p; ++step) {
      const int k = transposed ? step : t.p - 3 - step;
      T v[4], dot = T(0);
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int i = lane_id() + r * kWarp;
        v[r] = i == k + 1 ? T(1) : (i > k + 1 && i < t.p ? g[i * ld + k] : T(0));
        dot = fma(v[r], entry[r], dot);
      }
      dot = t.tau[k] * warp_sum(dot);
#pragma unroll
      for (int r = 0; r < 4; ++r) entry[r] = fma(-dot, v[r], entry[r]);
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int i = lane_id() + r * kWarp;
      if (i < t.p) t.x[i * t.kx + c] = entry[r];
    }
  }
  __syncthreads();
}

template <class T>
struct TridiagonalBand {
  const T *d, *e;
  KDOPS_DEVICE T diagonal(int i) const { return d[i]; }
  KDOPS_DEVICE T coupling(int i) const { return e[i]; }
  KDOPS_DEVICE T square(int i) const { return e[i] * e[i]; }
};

// From here on Context is TopkContext or LargeContext (large_context.cuh).

// How many eigenvalues of the tridiagonal matrix are larger than x.
template <class T, template <class> class Context>
KDOPS_DEVICE T eigenvalues_above(const Context<T>& t, T x, T norm) {
  T count;
  count_above<1>(TridiagonalBand<T>{t.d, t.e}, t.p, &x, norm * kEpsilon<T> * kEpsilon<T>, &count);
  return count;
}

// A bound of the tridiagonal matrix's norm, 1 for the zero matrix. Every warp computes it.
template <class T, template <class> class Context>
KDOPS_DEVICE T tridiagonal_norm(const Context<T>& t) {
  T largest = T(0);
  for (int i = lane_id(); i < t.p; i += kWarp) {
    const T before = i > 0 ? abs(t.e[i - 1]) : T(0), after = i + 1 < t.p ? abs(t.e[i]) : T(0);
    largest = max(largest, abs(t.d[i]) + before + after);
  }
  largest = warp_max(largest);
  return largest > T(0) ? largest : T(1);
}

// value[c]: the k largest eigenvalues, descending, to half an eps of the norm. All threads test
// points of k intervals at once; an interval shrinks by kTopkThreads / k + 1 in a round.
template <class T, template <class> class Context>
KDOPS_DEVICE void multisection(const Context<T>& t, T norm) {
  const int thread = static_cast<int>(threadIdx.x), points = kTopkThreads / t.k;
  const int c = thread % t.k, point = thread / t.k;
  if (thread < t.k) {
    t.low[thread] = -norm * kEpsilon<T> * t.p, t.high[thread] = norm * (1 + kEpsilon<T> * t.p);
    t.counter[thread] = 0;
  }
  __syncthreads();
  T width = norm;
#pragma unroll 1
  while (width > norm * kEpsilon<T> / 2) {
    const T step = (t.high[c] - t.low[c]) / (points + 1);
    const T x = fma(T(point + 1), step, t.low[c]);
    if (point < points && eigenvalues_above(t, x, norm) > T(c)) atomicAdd(&t.counter[c], 1);
    __syncthreads();
    if (thread < t.k) {
      t.low[c] = fma(T(t.counter[c]), step, t.low[c]);
      t.high[c] = t.low[c] + step;
      t.counter[c] = 0;
    }
    width /= points + 1;
    __syncthreads();
  }
  if (thread < t.k) t.value[thread] = (t.low[thread] + t.high[thread]) / 2;
  __syncthreads();
}

}  // namespace kdops::svd::gpu
