// Full SVD of matrices with both sides <= N (8, 16 or 32): a group of N lanes per matrix,
// lane j owns column j of B (length x p) and of V (p x p) in registers. One-sided Jacobi
// (small_jacobi.cuh): nothing is stored until the columns of B V are orthogonal, B V = U diag(S).
// Launched by full_cuda.cu.
#pragma once

#include "svd/full/gpu/small_jacobi.cuh"

namespace kdops::svd::gpu {

inline constexpr int kSmallThreads = 32;  // one warp: few matrices reach many multiprocessors

// Replaces the `wanted` columns with `missing` by unit vectors orthogonal to all other wanted ones.
template <class T, int N>
KDOPS_DEVICE void complete_lanes(T (&u)[N], bool wanted, bool missing, int length) {
  const int lane = group_lane<N>();
  bool present = wanted && !missing;
  const unsigned todo = warp_ballot<N>(wanted && missing);
  if (!warp_any(todo != 0)) return;
#pragma unroll 1
  for (int target = 0; target < N; ++target) {
    const bool active = todo >> target & 1;
    if (!warp_any(active)) continue;
    // the axis farthest from the space of the present columns
    T best = T(-1);
    int axis = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const T outside = T(1) - warp_sum<N, kWarp>(present ? u[i] * u[i] : T(0));
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
      for (int i = 0; i < N; ++i) candidate[i] -= warp_sum<N, kWarp>(present ? dot * u[i] : T(0));
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
    const T inside = i < count ? v[i] : v[0];
    largest = max(largest, inside);
    smallest = min(smallest, inside);
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
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const T other = shuffle<N, kWarp>(value, j);
    rank += (j < p) & ((other > value) | ((other == value) & (j < lane)));
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
  // Lanes and rows beyond the matrix read its edge: no branch, so that all loads are under way.
  const T* A = args.A + (problem.exists ? problem.index : 0) * (length * p);
  const int column = min(lane, p - 1);
  T largest = T(0);
  bool finite = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int row = min(i, length - 1);
    const bool by_rows = args.symmetric ? row >= column : args.long_rows();
    own.b[i] = A[by_rows ? row * p + column : column * length + row];
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const bool inside = problem.exists & (i < length) & (lane < p);
    own.b[i] = inside ? own.b[i] : T(0);
    own.v[i] = i == lane ? T(1) : T(0);
    finite = finite & (abs(own.b[i]) <= kLargestFinite<T>);
    largest = max(largest, abs(own.b[i]));
  }
  finite = warp_all<N>(finite);
  largest = warp_max<N, kWarp>(largest);
  largest = finite ? largest : T(0);
  const Scale<T> scale = power_of_two_scale(largest);
#pragma unroll
  for (int i = 0; i < N; ++i) own.b[i] = finite ? own.b[i] * scale.up * kBoost<T> : T(0);
  problem.scale_down = scale.down;
  problem.poison = finite ? T(1) : kNaN<T>;
  problem.limits = jacobi_limits(p, largest * scale.up * kBoost<T>);
  return problem;
}

// The first `count` numbers of a column, `stride` apart; without branches where it is all of them.
template <class T, int N>
KDOPS_DEVICE void store_column(T* to, int stride, const T (&column)[N], T sign, int count) {
  if (count == N) {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i * stride] = sign * column[i];
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (i < count) to[i * stride] = sign * column[i];
  }
}

// B to B V with orthogonal columns, in any order.
template <class T, int N, bool kWithV>
KDOPS_DEVICE void make_orthogonal(LaneColumns<T, N>& own, const JacobiLimits<T>& limits) {
  trade_halves(own.b, N / 2);
  if constexpr (kWithV) trade_halves(own.v, N / 2);
  bool done = false;
#pragma unroll 1
  for (int sweep = 0; sweep < kMaxSweeps && !warp_all(done); ++sweep)
    done = !paired_sweep<T, N, kWithV>(own, done, limits) || done;
  trade_halves(own.b, N / 2);
  if constexpr (kWithV) trade_halves(own.v, N / 2);
}

// Blocks that a multiprocessor must hold. Double precision: asked for more, or for nothing, the
// compiler spills for the sake of a twelfth.
template <class T>
inline constexpr int kSmallBlocks = sizeof(T) == 8 ? 1 : 16;

// Grid: ceil(count * N / kSmallThreads) blocks.
template <class T, int N>
__global__ void __launch_bounds__(kSmallThreads, kSmallBlocks<T>)
    svd_small_kernel(SvdArguments<T> args) {
  LaneColumns<T, N> own;
  const SmallProblem<T, N> problem = load_small(args, own);
  const int p = args.p(), length = static_cast<int>(args.length());
  const bool with_v = args.Vh != nullptr;
  // The columns beyond p are zero and never turn: theirs stay the axes beyond p.
  bool beyond = false;
  if (with_v) {
    make_orthogonal<T, N, true>(own, problem.limits);
#pragma unroll
    for (int i = 0; i < N; ++i) beyond = beyond | ((i >= p) & (own.v[i] != T(0)));
  } else {
    make_orthogonal<T, N, false>(own, problem.limits);
  }

  const T norm_squared = squared_norm(own.b), norm = sqrt(norm_squared);
  const int rank = descending_rank<T, N>(beyond ? T(-1) : norm, N);
  const bool writes = problem.exists && rank < p;
  if (writes)
    args.S[problem.index * p + rank] = norm / kBoost<T> * problem.scale_down * problem.poison;
  if (!with_v) return;
  const bool missing = !(norm_squared > problem.limits.floor_squared);
  const T scale = missing ? T(0) : T(1) / norm;
#pragma unroll
  for (int i = 0; i < N; ++i) own.b[i] *= scale;
  if (args.wide() || args.U != nullptr) complete_lanes(own.b, rank < p, missing, length);
  if (!writes) return;
  T sign = problem.poison;
  if (args.canonical) sign *= args.wide() ? lane_sign(own.b, length) : lane_sign(own.v, p);
  T* U = args.U == nullptr ? nullptr : args.U + problem.index * args.m * p;
  T* Vh = args.Vh + (problem.index * p + rank) * args.n;
  if (args.wide()) {
    if (U != nullptr) store_column(U + rank, p, own.v, sign, p);
    store_column(Vh, 1, own.b, sign, length);
  } else {
    if (U != nullptr) store_column(U + rank, p, own.b, sign, length);
    store_column(Vh, 1, own.v, sign, p);
  }
}

}  // namespace kdops::svd::gpu
