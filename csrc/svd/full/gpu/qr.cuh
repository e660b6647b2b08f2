// Householder QR of a tall matrix by one block, and Q applied to a p x p matrix. Rows 0..p-1 are
// reduced in shared memory; the rest streams through registers in tiles (thread (column, slice)
// holds kSliceRows rows), each tile eliminated against the triangle R. Backward stable for every
// input, also rank-deficient, and R needs no second look at the long side. Reflectors are kept in
// the long output (BlockContext::reflector) until apply_q replaces them with the result.
#pragma once

#include "svd/full/gpu/block_context.cuh"
#include "svd/shared/reflector.h"

namespace kdops::svd::gpu {
using namespace kdops::gpu;

// A later reader of v knows tau = 2 / (1 + |v_2|^2): where there is nothing to reflect, v = (1; 0)
// flips a sign instead of doing nothing. Harmless.
template <class T>
KDOPS_DEVICE Reflector<T> readable_reflector(T alpha, T tail_squared) {
  const Reflector<T> h = make_reflector(alpha, tail_squared);
  return h.tau == T(0) ? Reflector<T>{-alpha, T(2), T(0)} : h;
}

// Sum over the slices of what thread (slice, column) wrote to partial[slice * p + column].
template <class T>
KDOPS_DEVICE T sum_slices(const BlockContext<T>& b, const T* partial, int column) {
  T sum = T(0);
  for (int s = 0; s < b.slices; ++s) sum += partial[s * b.p + column];
  return sum;
}

// W[row * ld + column] holds the first p rows of B; becomes R on and above the diagonal.
template <class T>
KDOPS_DEVICE void factor_square(const BlockContext<T>& b) {
  const int thread = static_cast<int>(threadIdx.x), column = thread % b.p, slice = thread / b.p;
  const bool active = slice < b.slices;
#pragma unroll 1
  for (int k = 0; k < b.p; ++k) {
    T* partial = b.scratch + (k % 2) * b.threads;
    const int begin = k + 1 + (slice - (k + 1) % b.slices + b.slices) % b.slices;
    T dot = T(0), head = T(0), alpha = T(0);
    if (active) {
      for (int i = begin; i < b.p; i += b.slices)
        dot = fma(b.w[i * b.ld + k], b.w[i * b.ld + column], dot);
      partial[slice * b.p + column] = dot;
      head = b.w[k * b.ld + column];
      alpha = b.w[k * b.ld + k];
    }
    __syncthreads();
    if (active && column >= k) {
      const Reflector<T> h = readable_reflector(alpha, sum_slices(b, partial, k));
      if (column == k) {
        if (slice == 0) b.w[k * b.ld + k] = h.beta;
        for (int i = begin; i < b.p && b.long_out != nullptr; i += b.slices)
          b.reflector(k, 0, b.p)[i] = b.w[i * b.ld + k] * h.scale;
      } else {
        const T dot_all = sum_slices(b, partial, column);
        const T shift = h.tau * fma(dot_all, h.scale, head), step = shift * h.scale;
        if (slice == 0) b.w[k * b.ld + column] = head - shift;
        for (int i = begin; i < b.p; i += b.slices)
          b.w[i * b.ld + column] = fma(-step, b.w[i * b.ld + k], b.w[i * b.ld + column]);
      }
    }
    __syncthreads();
  }
}

// Eliminates the tile y (rows row0 ..) against R and leaves its reflectors in y.
template <class T>
KDOPS_DEVICE void factor_tile(const BlockContext<T>& b, T (&y)[kSliceRows<T>]) {
  constexpr int kRows = kSliceRows<T>;
  const int thread = static_cast<int>(threadIdx.x), column = thread % b.p, slice = thread / b.p;
  const bool active = slice < b.slices;
  T *x = b.scratch, *partial = b.scratch + 2 * b.tile;
#pragma unroll 1
  for (int k = 0; k < b.p; ++k) {
    T* mine = x + (k % 2) * b.tile + slice * kRows;
    if (active && column == k) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) mine[r] = y[r];
    }
    __syncthreads();
    T head = T(0), alpha = T(0);
    if (active) {
      T dot[2] = {T(0), T(0)};
#pragma unroll
      for (int r = 0; r < kRows; ++r) dot[r % 2] = fma(mine[r], y[r], dot[r % 2]);
      partial[slice * b.p + column] = dot[0] + dot[1];
      head = b.w[k * b.ld + column];
      alpha = b.w[k * b.ld + k];
    }
    __syncthreads();
    if (!active || column < k) continue;
    const Reflector<T> h = readable_reflector(alpha, sum_slices(b, partial, k));
    if (column == k) {
      if (slice == 0) b.w[k * b.ld + k] = h.beta;
#pragma unroll
      for (int r = 0; r < kRows; ++r) y[r] *= h.scale;
    } else {
      const T dot_all = sum_slices(b, partial, column);
      const T shift = h.tau * fma(dot_all, h.scale, head), step = shift * h.scale;
      if (slice == 0) b.w[k * b.ld + column] = head - shift;
#pragma unroll
      for (int r = 0; r < kRows; ++r) y[r] = fma(-step, mine[r], y[r]);
    }
  }
  __syncthreads();
}

// W receives R (row i of R at W + i * ld, zeros left of the diagonal).
template <class T>
KDOPS_DEVICE void qr(const BlockContext<T>& shared, const SvdArguments<T>& args) {
  const BlockContext<T> b = shared;
  const auto load = [&](int64_t row, int column) {
    return load_oriented(args, blockIdx.x, row, column) * b.scale.up * kBoost<T>;
  };
  constexpr int kRows = kSliceRows<T>;
  const int thread = static_cast<int>(threadIdx.x), column = thread % b.p, slice = thread / b.p;
  const bool by_rows = args.long_rows();
  for (int i = thread; i < b.p * b.p; i += b.threads) {
    const int row = by_rows ? i / b.p : i % b.p, c = by_rows ? i % b.p : i / b.p;
    b.w[row * b.ld + c] = load(row, c);
  }
  __syncthreads();
  factor_square(b);
#pragma unroll 1
  for (int64_t row0 = b.p; row0 < b.length; row0 += b.tile) {
    const int rows = static_cast<int>(min(int64_t(b.tile), b.length - row0));
    T y[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int row = slice * kRows + r;
      y[r] = slice < b.slices && row < rows ? load(row0 + row, column) : T(0);
    }
    factor_tile(b, y);
    if (b.long_out == nullptr || slice >= b.slices) continue;
    T* out = b.reflector(column, row0, rows);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      if (slice * kRows + r < rows) out[slice * kRows + r] = y[r];
  }
  for (int i = thread; i < b.p * b.p; i += b.threads)
    if (i % b.p < i / b.p) b.w[i / b.p * b.ld + i % b.p] = T(0);
  __syncthreads();
}

// One reflector stream: v of reflector k is fetched one step ahead into a ring of three buffers.
template <class T>
struct ReflectorStream {
  const BlockContext<T>& b;
  int64_t row0;
  int rows, skip;  // skip 1: entries up to k of reflector k are not stored (the square)

  KDOPS_DEVICE T* buffer(int k) const { return b.scratch + (k % 3) * max(b.tile, b.p); }
  KDOPS_DEVICE T fetch(int k, int i) const {
    if (k < 0 || i >= rows) return T(0);
    if (skip && i <= k) return i == k ? T(1) : T(0);
    return b.reflector(k, row0, rows)[i];
  }
  KDOPS_DEVICE void put(int k, const T (&ahead)[2]) const {
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      const int i = static_cast<int>(threadIdx.x) + q * b.threads;
      if (k >= 0 && i < max(b.tile, b.p)) buffer(k)[i] = ahead[q];
    }
  }
  KDOPS_DEVICE void get(int k, T (&ahead)[2]) const {
#pragma unroll
    for (int q = 0; q < 2; ++q) ahead[q] = fetch(k, static_cast<int>(threadIdx.x) + q * b.threads);
  }
};

// Rows row0.. of Q [J; 0]: y = H_0 .. H_{p-1} of this tile applied to (J; 0), J changed along.
template <class T>
KDOPS_DEVICE void apply_tile(const BlockContext<T>& b, int64_t row0, int rows,
                             T (&y)[kSliceRows<T>]) {
  constexpr int kRows = kSliceRows<T>;
  const int thread = static_cast<int>(threadIdx.x), column = thread % b.p, slice = thread / b.p;
  const bool active = slice < b.slices;
  const ReflectorStream<T> stream{b, row0, rows, 0};
  T* partials = b.scratch + 3 * max(b.tile, b.p);
  T ahead[2];
  stream.get(b.p - 1, ahead);
  stream.put(b.p - 1, ahead);
  __syncthreads();
#pragma unroll 1
  for (int k = b.p - 1; k >= 0; --k) {
    stream.get(k - 1, ahead);
    const T* v = stream.buffer(k) + slice * kRows;
    T *partial = partials + (k % 2) * (b.threads + kWarp), *squares = partial + b.threads;
    T head = T(0);
    if (active) {
      T dot[2] = {T(0), T(0)}, square = T(0);
#pragma unroll
      for (int r = 0; r < kRows; ++r) dot[r % 2] = fma(v[r], y[r], dot[r % 2]);
      if (column == 0) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) square = fma(v[r], v[r], square);
        squares[slice] = square;
      }
      head = b.j[column * b.ld + k];
      partial[slice * b.p + column] = dot[0] + dot[1];
    }
    stream.put(k - 1, ahead);
    __syncthreads();
    if (!active) continue;
    T square = T(0);
    for (int s = 0; s < b.slices; ++s) square += squares[s];
    const T shift = T(2) / (1 + square) * (head + sum_slices(b, partial, column));
#pragma unroll
    for (int r = 0; r < kRows; ++r) y[r] = fma(-shift, v[r], y[r]);
    if (slice == 0) b.j[column * b.ld + k] = head - shift;
  }
  __syncthreads();
}

// J = Q_square J, in place.
template <class T>
KDOPS_DEVICE void apply_square(const BlockContext<T>& b) {
  const int thread = static_cast<int>(threadIdx.x), column = thread % b.p, slice = thread / b.p;
  const bool active = slice < b.slices;
  const ReflectorStream<T> stream{b, 0, b.p, 1};
  T* partials = b.scratch + 3 * max(b.tile, b.p);
  T ahead[2];
  stream.get(b.p - 1, ahead);
  stream.put(b.p - 1, ahead);
  __syncthreads();
#pragma unroll 1
  for (int k = b.p - 1; k >= 0; --k) {
    stream.get(k - 1, ahead);
    const T* v = stream.buffer(k);
    T *partial = partials + (k % 2) * (b.threads + kWarp), *squares = partial + b.threads;
    const int begin = k + (slice - k % b.slices + b.slices) % b.slices;
    if (active) {
      T dot = T(0), square = T(0);
      for (int i = begin; i < b.p; i += b.slices) dot = fma(v[i], b.j[column * b.ld + i], dot);
      if (column == 0) {
        for (int i = begin; i < b.p; i += b.slices) square = fma(v[i], v[i], square);
        squares[slice] = square;
      }
      partial[slice * b.p + column] = dot;
    }
    stream.put(k - 1, ahead);
    __syncthreads();
    if (!active) continue;
    T square = T(0);
    for (int s = 0; s < b.slices; ++s) square += squares[s];
    const T shift = T(2) / square * sum_slices(b, partial, column);
    for (int i = begin; i < b.p; i += b.slices)
      b.j[column * b.ld + i] = fma(-shift, v[i], b.j[column * b.ld + i]);
  }
  __syncthreads();
}

// The long factor Q J, column c times sign[c] to place rank[c] of the output.
template <class T>
KDOPS_DEVICE void write_long(const BlockContext<T>& shared) {
  const BlockContext<T> b = shared;
  constexpr int kRows = kSliceRows<T>;
  const int thread = static_cast<int>(threadIdx.x), column = thread % b.p, slice = thread / b.p;
  const auto put = [&](int64_t row, int c, T value) {
    const int64_t at = b.wide ? b.rank[c] * b.length + row : row * b.p + b.rank[c];
    b.long_out[at] = value * b.sign[c];
  };
  const int64_t tiles = (b.length - b.p + b.tile - 1) / b.tile;
#pragma unroll 1
  for (int64_t t = tiles - 1; t >= 0; --t) {
    const int64_t row0 = b.p + t * b.tile;
    const int rows = static_cast<int>(min(int64_t(b.tile), b.length - row0));
    T y[kRows] = {};
    apply_tile(b, row0, rows, y);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      if (slice < b.slices && slice * kRows + r < rows) put(row0 + slice * kRows + r, column, y[r]);
  }
  apply_square(b);
  for (int i = thread; i < b.p * b.p; i += b.threads) {
    const int row = b.wide ? i % b.p : i / b.p, c = b.wide ? i / b.p : i % b.p;
    put(row, c, b.j[c * b.ld + row]);
  }
}

}  // namespace kdops::svd::gpu
