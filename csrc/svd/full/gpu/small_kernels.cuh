// Full SVD of matrices with both sides <= N (8, 16 or 32): a group of N lanes per matrix,
// lane j owns column j of B (length x p) and of V (p x p) in registers. One-sided Jacobi: partners
// are lane ^ 1, lane ^ 2, ... lane ^ (N - 1), their columns arrive by shuffle, nothing is stored
// until the columns of B V are orthogonal: B V = U diag(S). Launched by full_cuda.cu.
#pragma once

#include "svd/full/gpu/device.cuh"

namespace kdops::svd::gpu {
using namespace kdops::gpu;

inline constexpr int kSmallThreads = 64;  // two warps: 128 matrices of 32 x 32 fill 64 blocks

template <class T, int N>
struct LaneColumns {
  T b[N];  // column of B, then of B V
  T v[N];  // column of V
};

template <class T, int N>
KDOPS_DEVICE T squared_norm(const T (&column)[N]) {
  T sum[2] = {T(0), T(0)};
#pragma unroll
  for (int i = 0; i < N; ++i) sum[i % 2] = fma(column[i], column[i], sum[i % 2]);
  return sum[0] + sum[1];
}

// All pairs of columns once. True in every lane if the matrix needs another sweep.
template <class T, int N>
KDOPS_DEVICE bool small_sweep(LaneColumns<T, N>& own, bool done, bool with_v,
                              const JacobiLimits<T>& limits) {
  const int lane = group_lane<N>();
  T norm = squared_norm(own.b);
  bool again = false;
#pragma unroll 1
  for (int bits = 1; bits < N; ++bits) {
    T other[N], dot[2] = {T(0), T(0)};
#pragma unroll
    for (int i = 0; i < N; ++i) {
      other[i] = shuffle_xor<N>(own.b[i], bits);
      dot[i % 2] = fma(own.b[i], other[i], dot[i % 2]);
    }
    const T other_norm = shuffle_xor<N>(norm, bits);
    const bool first = lane < (lane ^ bits);
    Rotation<T> turn = jacobi_rotation(first ? norm : other_norm, first ? other_norm : norm,
                                       dot[0] + dot[1], limits);
    turn.turns = turn.turns && !done;
    again = again || turn.again;
    if (!warp_any(turn.turns)) continue;  // the whole warp, so that its groups stay together
    const T x = turn.turns ? turn.x : T(1);
    const T y = turn.turns ? (first ? turn.y : -turn.y) : T(0);
    if (turn.turns) norm = first ? turn.aa : turn.bb;
#pragma unroll
    for (int i = 0; i < N; ++i) own.b[i] = fma(x, own.b[i], y * other[i]);
    if (!with_v) continue;
#pragma unroll
    for (int i = 0; i < N; ++i) own.v[i] = fma(x, own.v[i], y * shuffle_xor<N>(own.v[i], bits));
  }
  return warp_any<N>(again);
}

// Replaces the columns of lanes below p with `missing` by unit vectors orthogonal to all others.
template <class T, int N>
KDOPS_DEVICE void complete_lanes(T (&u)[N], bool missing, int length, int p) {
  const int lane = group_lane<N>();
  bool present = lane < p && !missing;
  unsigned todo = warp_ballot<N>(lane < p && missing);
#pragma unroll 1
  for (int target = 0; target < N; ++target) {
    const bool active = todo >> target & 1;
    if (!warp_any(active)) continue;
    // the axis farthest from the space of the present columns
    T best = T(-1);
    int axis = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const T outside = T(1) - warp_sum<N>(present ? u[i] * u[i] : T(0));
      if (i < length && outside > best) best = outside, axis = i;
    }
    T candidate[N];
#pragma unroll
    for (int i = 0; i < N; ++i) candidate[i] = i == axis ? T(1) : T(0);
#pragma unroll 1
    for (int pass = 0; pass < 2; ++pass) {
      T dot = T(0);
#pragma unroll
      for (int i = 0; i < N; ++i) dot = fma(u[i], candidate[i], dot);
      if (!present) dot = T(0);
#pragma unroll
      for (int i = 0; i < N; ++i) candidate[i] -= warp_sum<N>(present ? dot * u[i] : T(0));
    }
    const T scale = T(1) / sqrt(squared_norm(candidate));
    if (active && lane == target) {
#pragma unroll
      for (int i = 0; i < N; ++i) u[i] = candidate[i] * scale;
      present = true;
    }
  }
}

// The canonical sign of a column held by one lane.
template <class T, int N>
KDOPS_DEVICE T lane_sign(const T (&v)[N], int count) {
  T largest = v[0], smallest = v[0], first = T(0);
#pragma unroll
  for (int i = 1; i < N; ++i) {
    if (i >= count) continue;
    largest = max(largest, v[i]);
    smallest = min(smallest, v[i]);
  }
  const T sign = sign_of_extremes(largest, smallest);
  if (sign != T(0)) return sign;
  const T almost = deciding_size(largest, smallest);
#pragma unroll
  for (int i = 0; i < N; ++i)
    if (i < count && first == T(0) && abs(v[i]) >= almost) first = v[i];
  return first < T(0) ? T(-1) : T(1);
}

// The place of this lane's value in descending order; lanes from p on keep their own place.
template <class T, int N>
KDOPS_DEVICE int descending_rank(T value, int p) {
  const int lane = group_lane<N>();
  int rank = 0;
#pragma unroll 1
  for (int j = 0; j < p; ++j) {
    const T other = shuffle<N>(value, j);
    if (other > value || (other == value && j < lane)) ++rank;
  }
  return lane < p ? rank : lane;
}

template <class T, int N>
struct SmallProblem {
  int64_t index;
  bool exists;
  T scale_down, poison;  // from scaled to true values; NaN for a bad matrix, else 1
  JacobiLimits<T> limits;
};

// Loads, checks and scales the group's matrix.
template <class T, int N>
KDOPS_DEVICE SmallProblem<T, N> load_small(const SvdArguments<T>& args, LaneColumns<T, N>& own) {
  const int lane = group_lane<N>(), p = args.p(), length = static_cast<int>(args.length());
  SmallProblem<T, N> problem;
  problem.index = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / N;
  problem.exists = problem.index < args.count;
  T largest = T(0);
  bool finite = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const bool inside = problem.exists && i < length && lane < p;
    own.b[i] = inside ? load_oriented(args, problem.index, i, lane) : T(0);
    own.v[i] = i == lane ? T(1) : T(0);
    finite = finite && abs(own.b[i]) <= kLargestFinite<T>;
    largest = max(largest, abs(own.b[i]));
  }
  finite = warp_all<N>(finite);
  largest = finite ? warp_max<N>(largest) : T(0);
  const Scale<T> scale = power_of_two_scale(largest);
#pragma unroll
  for (int i = 0; i < N; ++i) own.b[i] = finite ? own.b[i] * scale.up * kBoost<T> : T(0);
  problem.scale_down = scale.down;
  problem.poison = finite ? T(1) : kNaN<T>;
  problem.limits = jacobi_limits(p, largest * scale.up * kBoost<T>);
  return problem;
}

// Grid: ceil(count * N / kSmallThreads) blocks.
template <class T, int N>
__global__ void __launch_bounds__(kSmallThreads) svd_small_kernel(SvdArguments<T> args) {
  LaneColumns<T, N> own;
  const SmallProblem<T, N> problem = load_small(args, own);
  const int lane = group_lane<N>(), p = args.p(), length = static_cast<int>(args.length());
  const bool with_v = args.Vh != nullptr;
  bool done = false;
#pragma unroll 1
  for (int sweep = 0; sweep < kMaxSweeps && !warp_all(done); ++sweep)
    done = !small_sweep(own, done, with_v, problem.limits) || done;

  const T norm_squared = squared_norm(own.b), norm = sqrt(norm_squared);
  const bool writes = problem.exists && lane < p;
  const int rank = descending_rank<T, N>(norm, p);
  if (writes)
    args.S[problem.index * p + rank] = norm / kBoost<T> * problem.scale_down * problem.poison;
  if (!with_v) return;
  const bool missing = !(norm_squared > problem.limits.floor_squared);
  const T scale = missing ? T(0) : T(1) / norm;
#pragma unroll
  for (int i = 0; i < N; ++i) own.b[i] *= scale;
  if (args.wide() || args.U != nullptr) complete_lanes(own.b, missing, length, p);
  if (!writes) return;
  T sign = problem.poison;
  if (args.canonical) sign *= args.wide() ? lane_sign(own.b, length) : lane_sign(own.v, p);
  T* U = args.U == nullptr ? nullptr : args.U + problem.index * args.m * p;
  T* Vh = args.Vh + (problem.index * p + rank) * args.n;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (U != nullptr && i < args.m) U[i * p + rank] = sign * (args.wide() ? own.v[i] : own.b[i]);
    if (i < args.n) Vh[i] = sign * (args.wide() ? own.b[i] : own.v[i]);
  }
}

}  // namespace kdops::svd::gpu
