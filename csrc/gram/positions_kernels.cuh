// The Gram loss through positions, where the maps are shorter than wide, and the unit rows of
// nst_loss. With E = X - Y, D = X1T X2 - Y1T Y2 of maps (depth x channels) is
//   D = PT Q,  P = [E1; Y1],  Q = [X2; E2]   (2 depth rows each), so that with A = P PT, B = Q QT
//   |D|^2 = <A, B>,  X2 DT = (first half of B's rows) P,  X1 D = (halves of A's rows, added) Q.
// Taking the difference first keeps the digits of a loss that is small against the Grams. A, B and
// the last two are batched products (gram_kernels.cuh). Launched by loss_launch.cuh, loss_cuda.cu.
#pragma once

#include "gram/gram_tile.cuh"

namespace kdops::gram::gpu {
using namespace kdops::gpu;

inline constexpr int kPositionThreads = 256;

// P or Q of a batch. Matrices are (slow, fast) as memory has them; `second` lies between a value of
// the first half and its fellow of the second, `pitch` between slow neighbours.
template <class T>
struct GramStack {
  GramOperand<T> x, y;  // row: stride of slow, depth: stride of fast
  int64_t count;        // B * slow * fast
  int slow, fast;
  int64_t pitch, second;
  bool difference_first;  // [X - Y; Y], else [X; X - Y]
  T* out;                 // (B, 2 * slow * fast)
};

template <class T>
__global__ void __launch_bounds__(kPositionThreads) gram_stack_kernel(GramStack<T> q) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPositionThreads + threadIdx.x;
  if (i >= q.count) return;
  const int64_t size = static_cast<int64_t>(q.slow) * q.fast, item = i / size;
  const auto at = static_cast<unsigned>(i % size), slow = at / q.fast, fast = at % q.fast;
  const T x = q.x.data[item * q.x.batch + slow * q.x.row + fast * q.x.depth];
  const T y = q.y.data[item * q.y.batch + slow * q.y.row + fast * q.y.depth];
  T* out = q.out + 2 * item * size + slow * q.pitch + fast;
  out[0] = q.difference_first ? x - y : x;
  out[q.second] = q.difference_first ? y : x - y;
}

// One item a block: losses = <A, B> of (2 depth)^2 matrices; the halves of A's rows are added into
// the first. A square is not negative, but for rounding; NaN stays.
template <class T>
__global__ void __launch_bounds__(kPositionThreads)
    gram_inner_kernel(T* a_items, const T* __restrict__ b_items, int depth,
                      double* __restrict__ losses) {
  const int64_t first = int64_t(4) * blockIdx.x * depth * depth;
  T* a = a_items + first;
  const T* b = b_items + first;
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < 2 * depth * depth; i += kPositionThreads) {
    const int at = i / depth * 2 * depth + i % depth;
    const T left = a[at], right = a[at + depth];
    sum = fma(static_cast<double>(left), static_cast<double>(b[at]), sum);
    sum = fma(static_cast<double>(right), static_cast<double>(b[at + depth]), sum);
    a[at] = left + right;
  }
  sum = block_sum<kPositionThreads>(sum);
  if (threadIdx.x == 0) losses[blockIdx.x] = sum < 0 ? 0.0 : sum;
}

// ---- unit rows, a warp each ------------------------------------------------------------------

// Rows (B, C, L) of x as unit vectors; one of norm zero, or below the normal range, is zero.
// inverse: 1 / norm, or 0.
template <class T>
__global__ void __launch_bounds__(kPositionThreads)
    unit_rows_kernel(GramOperand<T> x, int64_t rows, int channels, int length, T* __restrict__ out,
                     T* __restrict__ inverse) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * (kPositionThreads / kWarp) + warp_id();
  if (r >= rows) return;  // a whole warp
  const T* from = x.data + r / channels * x.batch + static_cast<unsigned>(r % channels) * x.row;
  T largest(0), squares(0);
  for (int l = lane_id(); l < length; l += kWarp) largest = max(largest, abs(from[l * x.depth]));
  largest = warp_max(largest);
  const T unit = largest > 0 ? largest : T(1);  // no overflow of the squares
  for (int l = lane_id(); l < length; l += kWarp) {
    const T part = from[l * x.depth] / unit;
    squares = fma(part, part, squares);
  }
  const T norm = unit * sqrt(warp_sum(squares)), scale = norm < kTiny<T> ? T(0) : 1 / norm;
  for (int l = lane_id(); l < length; l += kWarp) out[r * length + l] = scale * from[l * x.depth];
  if (lane_id() == 0) inverse[r] = scale;
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
  T along(0);
  for (int l = lane_id(); l < length; l += kWarp) along = fma(u[l], row[l], along);
  along = warp_sum(along);
  for (int l = lane_id(); l < length; l += kWarp) row[l] = inverse[r] * fma(-along, u[l], row[l]);
}

}  // namespace kdops::gram::gpu
