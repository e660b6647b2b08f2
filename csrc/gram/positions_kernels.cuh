// The Gram loss through positions, where the maps are shorter than wide, and the unit rows of
// nst_loss. With E = X - Y, D = X1T X2 - Y1T Y2 of maps (depth x channels) is
//   D = PT Q,  P = [E1; Y1],  Q = [X2; E2]   (2 depth rows each), so that with A = P PT, B = Q QT
//   |D|^2 = <A, B>,  X2 DT = (first half of B's rows) P,  X1 D = (halves of A's rows, added) Q.
// Taking the difference first keeps the digits of a loss that is small against the Grams. A, B and
// the last two are batched products (gram_kernels.cuh). P and Q of an item are multiplied by powers
// of two p and q that bring their largest entries near one (gram_tops_kernel): where the two sides
// are of very different scales A and B alone would leave the range. Launched by loss_launch.cuh,
// loss_cuda.cu.
#pragma once

#include "common/shared/unit_row.h"
#include "gram/gram_tile.cuh"

namespace kdops::gram::gpu {

inline constexpr int kPositionThreads = 256;
inline constexpr int kTopParts = 8;  // blocks that look for the largest entry of an item

// P or Q of a batch. Matrices are (slow, fast) as memory has them; `second` lies between a value of
// the first half and its fellow of the second, `pitch` between slow neighbours.
template <class T>
struct GramStack {
  GramOperand<T> x, y;  // row: stride of slow, depth: stride of fast
  int64_t count;        // B * slow * fast
  int slow, fast;
  int64_t pitch, second;
  bool difference_first;  // [X - Y; Y], else [X; X - Y]
  T* tops;                // (B, kTopParts): the largest |entry| of X and Y in each part
  T* out;                 // (B, 2 * slow * fast)
};

template <class T>
KDOPS_DEVICE T gram_entry(const GramOperand<T>& x, int64_t item, unsigned slow, unsigned fast) {
  return x.data[item * x.batch + slow * x.row + fast * x.depth];
}

// Block: part blockIdx.x % kTopParts of an item.
template <class T>
__global__ void __launch_bounds__(kPositionThreads) gram_tops_kernel(GramStack<T> q) {
  const int64_t size = static_cast<int64_t>(q.slow) * q.fast, item = blockIdx.x / kTopParts;
  const int64_t first = blockIdx.x % kTopParts * kPositionThreads + threadIdx.x;
  T top = 0;
  for (int64_t i = first; i < size; i += kTopParts * kPositionThreads) {
    const auto at = static_cast<unsigned>(i), slow = at / q.fast, fast = at % q.fast;
    top = max(top, abs(gram_entry(q.x, item, slow, fast)));
    top = max(top, abs(gram_entry(q.y, item, slow, fast)));
  }
  top = block_max<kPositionThreads>(top);
  if (threadIdx.x == 0) q.tops[blockIdx.x] = top;
}

// What P or Q of an item is multiplied by.
template <class T>
KDOPS_DEVICE T gram_stack_scale(const T* tops, int64_t item) {
  T top = 0;
  for (int part = 0; part < kTopParts; ++part) top = max(top, tops[item * kTopParts + part]);
  return row_scale(top);
}

template <class T>
__global__ void __launch_bounds__(kPositionThreads) gram_stack_kernel(GramStack<T> q) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPositionThreads + threadIdx.x;
  if (i >= q.count) return;
  const int64_t size = static_cast<int64_t>(q.slow) * q.fast, item = i / size;
  const auto at = static_cast<unsigned>(i % size), slow = at / q.fast, fast = at % q.fast;
  const T scale = gram_stack_scale(q.tops, item);
  const T x = scale * gram_entry(q.x, item, slow, fast);
  const T y = scale * gram_entry(q.y, item, slow, fast);
  T* out = q.out + 2 * item * size + slow * q.pitch + fast;
  out[0] = q.difference_first ? x - y : x;
  out[q.second] = q.difference_first ? y : x - y;
}

// One item a block: losses = <A, B> of (2 depth)^2 matrices, which come times p^2 and q^2; the
// halves of A's rows are added into the first. That half, and B's, are left so that P and Q as they
// are stored pull the right gradients. A square is not negative, but for rounding; NaN stays.
template <class T>
__global__ void __launch_bounds__(kPositionThreads)
    gram_inner_kernel(T* a_items, T* b_items, const T* __restrict__ p_tops,
                      const T* __restrict__ q_tops, int depth, double* __restrict__ losses) {
  const int64_t first = int64_t(4) * blockIdx.x * depth * depth;
  T *a = a_items + first, *b = b_items + first;
  const double p = gram_stack_scale(p_tops, blockIdx.x), q = gram_stack_scale(q_tops, blockIdx.x);
  const double both = 1 / (p * q), to_a = 1 / p, to_b = 1 / q;
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < 2 * depth * depth; i += kPositionThreads) {
    const int at = i / depth * 2 * depth + i % depth;
    const T left = a[at], right = a[at + depth];
    sum = fma(static_cast<double>(left), static_cast<double>(b[at]), sum);
    sum = fma(static_cast<double>(right), static_cast<double>(b[at + depth]), sum);
    a[at] = static_cast<T>((left + right) * to_a * both);
    b[at] = static_cast<T>(b[at] * to_b * both);
  }
  sum = block_sum<kPositionThreads>(sum) * both * both;
  if (threadIdx.x == 0) losses[blockIdx.x] = sum < 0 ? 0.0 : sum;
}

// ---- unit rows, a warp each ------------------------------------------------------------------

// This lane's share of the sum of term(l) over 0..length: in T over pieces, the pieces in double.
template <class T, class Term>
KDOPS_DEVICE double lane_sum(int length, const Term& term) {
  constexpr int kPiece = 32 * kWarp;
  double sum = 0;
  for (int first = 0; first < length; first += kPiece) {
    T part(0);
    for (int l = first + lane_id(); l < min(length, first + kPiece); l += kWarp) part += term(l);
    sum += static_cast<double>(part);
  }
  return sum;
}

// Rows (B, C, L) of x as unit vectors, by the rule of unit_row.h; inverse: 1 / norm, or 0.
template <class T>
__global__ void __launch_bounds__(kPositionThreads)
    unit_rows_kernel(GramOperand<T> x, int64_t rows, int channels, int length, T* __restrict__ out,
                     T* __restrict__ inverse) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * (kPositionThreads / kWarp) + warp_id();
  if (r >= rows) return;  // a whole warp
  const T* from = x.data + r / channels * x.batch + static_cast<unsigned>(r % channels) * x.row;
  T largest(0);
  for (int l = lane_id(); l < length; l += kWarp) largest = max(largest, abs(from[l * x.depth]));
  const T scale = row_scale(warp_max(largest));
  const double squares = warp_sum(lane_sum<T>(length, [&](int l) {
    const T part = scale * from[l * x.depth];
    return part * part;
  }));
  const UnitFactors<T> factors = unit_factors(scale, static_cast<T>(squares));
  for (int l = lane_id(); l < length; l += kWarp)
    out[r * length + l] = scale * from[l * x.depth] * factors.unit;
  if (lane_id() == 0) inverse[r] = factors.inverse;
}

// g = (g - u <u, g>) / |x| in place: the cotangent of x from the one of its unit rows u.
template <class T>
__global__ void __launch_bounds__(kPositionThreads)
    unit_rows_back_kernel(const T* __restrict__ unit, const T* __restrict__ inverse, int64_t rows,
                          int length, T* g) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * (kPositionThreads / kWarp) + warp_id();
  if (r >= rows) return;
  const T* u = unit + r * length;
  T* row = g + r * length;
  const T along =
      static_cast<T>(warp_sum(lane_sum<T>(length, [&](int l) { return u[l] * row[l]; })));
  for (int l = lane_id(); l < length; l += kWarp) row[l] = inverse[r] * fma(-along, u[l], row[l]);
}

}  // namespace kdops::gram::gpu
