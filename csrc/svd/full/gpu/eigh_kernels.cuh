// Symmetric eigenproblems on CUDA by Jacobi rotations of W = A V, both held by columns: the entry
// (i, j) of V^T A V is v_i . w_j, a rotation turns columns i and j of V and of W alike, and V ends
// as the eigenvectors. No shift and no squares: residuals stay at a few eps |A|, and small values
// of graded and nearly diagonal matrices keep their own digits.
// eigh_small_kernel: n <= 8, 16 or 32, a lane per column (small_kernels.cuh).
// eigh_block_kernel: n <= 128, a block per matrix (jacobi.cuh). Launched by full_cuda.cu.
#pragma once

#include "svd/full/gpu/block_kernels.cuh"
#include "svd/full/gpu/eigh_columns.cuh"
#include "svd/full/gpu/small_kernels.cuh"

namespace kdops::svd::gpu {

// Couplings above `settled`, some rounding errors of |A|, ask for another sweep. Those below
// `floor`, far below one, are left; the others are turned away, even where they matter to small
// values only.
template <class T>
struct SymmetricLimits {
  T settled, floor;
};
template <class T>
KDOPS_DEVICE SymmetricLimits<T> symmetric_limits(T frobenius_squared) {
  const T norm = sqrt(frobenius_squared);
  return {2 * kEpsilon<T> * norm, kEpsilon<T> * kEpsilon<T> * norm};
}

// Columns (a, b) become (a - sine (b + tangent a), b + sine (a - tangent b)), tangent of half the
// angle: for small angles the rounding errors of sine and tangent do not change a column's length.
template <class T>
struct SymmetricTurn {
  T sine, tangent;
  T move;  // aa loses it, bb gains it
  bool again;
};
template <class T>
KDOPS_DEVICE SymmetricTurn<T> symmetric_turn(T aa, T bb, T ab, const SymmetricLimits<T>& limits) {
  const T size = abs(ab), least = kEpsilon<T> * kEpsilon<T> * abs(aa * bb);
  if (!(size > limits.floor) || !(size * size > least)) return {T(0), T(0), T(0), false};
  const T t = jacobi_tangent(aa, bb, ab), root = sqrt(1 + t * t);
  return {t / root, t / (1 + root), t * ab, size > limits.settled};
}

// ---- a lane per column -----------------------------------------------------------------------

// The column's own entry of V^T A V.
template <class T, int N>
KDOPS_DEVICE T rayleigh_quotient(const LaneColumns<T, N>& own) {
  T sum[2] = {T(0), T(0)};
#pragma unroll
  for (int i = 0; i < N; ++i) sum[i % 2] = fma(own.v[i], own.b[i], sum[i % 2]);
  return sum[0] + sum[1];
}

// All pairs of columns once. True in every lane if the matrix needs another sweep.
template <class T, int N>
KDOPS_DEVICE bool small_symmetric_sweep(LaneColumns<T, N>& own, bool done,
                                        const SymmetricLimits<T>& limits) {
  const int lane = group_lane<N>();
  T value = rayleigh_quotient(own);
  bool again = false;
#pragma unroll 1
  for (int bits = 1; bits < N; ++bits) {
    T other[N], dot[2] = {T(0), T(0)};
#pragma unroll
    for (int i = 0; i < N; ++i) {
      other[i] = shuffle_xor<N, kWarp>(own.b[i], bits);
      dot[i % 2] = fma(own.v[i], other[i], dot[i % 2]);
    }
    // v_i . w_j and v_j . w_i differ by rounding: both lanes take their mean.
    const T mine = dot[0] + dot[1], coupling = (mine + shuffle_xor<N, kWarp>(mine, bits)) / 2;
    const T other_value = shuffle_xor<N, kWarp>(value, bits);
    const bool first = lane < (lane ^ bits);
    const SymmetricTurn<T> turn =
        symmetric_turn(first ? value : other_value, first ? other_value : value, coupling, limits);
    again = again || turn.again;
    const bool turns = turn.sine != T(0) && !done;
    if (!warp_any(turns)) continue;  // the whole warp, so that its groups stay together
    const T sine = !turns ? T(0) : first ? -turn.sine : turn.sine;
    const T tangent = first ? turn.tangent : -turn.tangent;
    if (turns) value += first ? -turn.move : turn.move;
#pragma unroll
    for (int i = 0; i < N; ++i) own.b[i] = fma(sine, fma(tangent, own.b[i], other[i]), own.b[i]);
#pragma unroll
    for (int i = 0; i < N; ++i)
      own.v[i] = fma(sine, fma(tangent, own.v[i], shuffle_xor<N, kWarp>(own.v[i], bits)), own.v[i]);
  }
  return warp_any<N>(again);
}

// Grid: ceil(count * N / kSmallThreads) blocks.
template <class T, int N>
__global__ void __launch_bounds__(kSmallThreads) eigh_small_kernel(SvdArguments<T> args) {
  LaneColumns<T, N> own;
  const SmallProblem<T, N> problem = load_small(args, own);
  const int lane = group_lane<N>(), p = args.p();
  const SymmetricLimits<T> limits = symmetric_limits(warp_sum<N, kWarp>(squared_norm(own.b)));
  bool done = false;
#pragma unroll 1
  for (int sweep = 0; sweep < kMaxSweeps && !warp_all(done); ++sweep)
    done = !small_symmetric_sweep(own, done, limits) || done;

  const T value = rayleigh_quotient(own);
  const int place = p - 1 - descending_rank<T, N>(value, p);
  if (!problem.exists || lane >= p) return;
  args.S[problem.index * p + place] = value / kBoost<T> * problem.scale_down * problem.poison;
#pragma unroll
  for (int i = 0; i < N; ++i)
    if (i < p) args.U[(problem.index * p + i) * p + place] = own.v[i] * problem.poison;
}

// ---- a block per matrix ----------------------------------------------------------------------

// W and V (J) of eight columns, and the diagonal entry of V^T A V of place lane_id() % 8.
template <class T, int kRowsPerLane>
struct EightPairs {
  EightColumns<T, kRowsPerLane> w, v;
  T value;

  KDOPS_DEVICE void advance(bool within) {
    w.advance(within);
    v.advance(within);
    // digit i: from where EightColumns::advance fills place i
    const unsigned sources = within ? 0x65417320u : 0x47653210u;
    value = shuffle(value, static_cast<int>(sources >> (4 * (lane_id() % 8)) & 7));
  }
  KDOPS_DEVICE void turn(int c, const TurnRecord<T>& r) {
    const T sine = r.x, tangent = r.y;
#pragma unroll
    for (int row = 0; row < kRowsPerLane; ++row) {
      turn_pair(w.value[c][row], w.value[c + 4][row], sine, tangent);
      turn_pair(v.value[c][row], v.value[c + 4][row], sine, tangent);
    }
  }
  KDOPS_DEVICE static void turn_pair(T& a, T& b, T sine, T tangent) {
    const T from_b = fma(tangent, a, b), from_a = fma(-tangent, b, a);
    a = fma(-sine, from_b, a);
    b = fma(sine, from_a, b);
  }
};

// Turns the four pairs (c, c + 4); lanes 8 c .. 8 c + 7 compute pair c's angle. True in lanes that
// saw a large coupling.
template <class T, int kRowsPerLane>
KDOPS_DEVICE bool turn_symmetric(EightPairs<T, kRowsPerLane>& columns, TurnRecord<T>* record,
                                 const SymmetricLimits<T>& limits) {
  T dot[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    dot[c] = T(0);
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r)
      dot[c] = fma(columns.v.value[c][r], columns.w.value[c + 4][r], dot[c]);
  }
  const int mine = lane_id() / 8;
  const T aa = shuffle(columns.value, mine), bb = shuffle(columns.value, mine + 4);
  const SymmetricTurn<T> turn = symmetric_turn(aa, bb, scatter_sum(dot), limits);
  if (!warp_any(turn.sine != T(0))) return turn.again;
  if (lane_id() % 8 == 0) record[mine] = {turn.sine, turn.tangent, aa - turn.move, bb + turn.move};
  sync_warp();
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    columns.turn(c, record[c]);
    sync_warp();  // or all records are fetched first: there are no registers for that
  }
  const TurnRecord<T>& own = record[lane_id() % 4];
  columns.value = lane_id() % 8 < 4 ? own.aa : own.bb;
  sync_warp();  // the records are free again
  return turn.again;
}

// One meeting of two blocks of columns. True in lanes that saw a large coupling.
template <class T, int kRowsPerLane>
KDOPS_DEVICE bool meet_symmetric(const BlockContext<T>& b, const SymmetricLimits<T>& limits,
                                 int first, int second, bool within) {
  EightPairs<T, kRowsPerLane> columns;
  columns.w.load(b, b.w, first, second);
  columns.v.load(b, b.j, first, second);
  T sums[8];
#pragma unroll
  for (int c = 0; c < 8; ++c) {
    sums[c] = T(0);
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r)
      sums[c] = fma(columns.v.value[c][r], columns.w.value[c][r], sums[c]);
  }
  columns.value = shuffle(scatter_sum(sums), lane_id() % 8 * 4);
  TurnRecord<T>* record = reinterpret_cast<TurnRecord<T>*>(b.scratch) + warp_id() * 4;
  bool again = false;
  const int steps = within ? kMaxSteps : 4;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    again = turn_symmetric(columns, record, limits) || again;
    columns.advance(within);
  }
  columns.w.store(b, b.w, first, second);
  columns.v.store(b, b.j, first, second);
  return again;
}

template <class T, int kRowsPerLane>
KDOPS_DEVICE void symmetric_sweeps(const BlockContext<T>& b, const SymmetricLimits<T>& limits) {
  block_sweeps(b, [&](int first, int second, bool within) {
    return meet_symmetric<T, kRowsPerLane>(b, limits, first, second, within);
  });
}

// W = A, scaled, and the limits. Ends with a block barrier.
template <class T>
KDOPS_DEVICE void load_symmetric(const SvdArguments<T>& args, const BlockContext<T>& b,
                                 SymmetricLimits<T>& limits) {
  T square = T(0);
  for (int i = static_cast<int>(threadIdx.x); i < b.p * b.p; i += b.threads) {
    const int row = i / b.p, c = i % b.p;
    const T entry = load_oriented(args, blockIdx.x, row, c) * b.scale.up * kBoost<T>;
    b.w[c * b.ld + row] = entry;
    square = fma(entry, entry, square);
  }
  square = reduce_block(square, Add(), b.scratch);
  if (threadIdx.x == 0) limits = symmetric_limits(square);
  __syncthreads();
}

// Eigenvalues and eigenvectors once V has converged.
template <class T>
KDOPS_DEVICE void write_eigh(const SvdArguments<T>& args, const BlockContext<T>& b) {
  const int64_t index = blockIdx.x;
  for (int c = warp_id(); c < b.p; c += b.threads / kWarp) {
    T dot = T(0);
    for (int i = lane_id(); i < b.p; i += kWarp)
      dot = fma(b.j[c * b.ld + i], b.w[c * b.ld + i], dot);
    dot = warp_sum(dot);
    if (lane_id() == 0) b.value[c] = dot;
  }
  __syncthreads();
  rank_values(b);
  for (int c = static_cast<int>(threadIdx.x); c < b.p; c += b.threads)
    args.S[index * b.p + b.p - 1 - b.rank[c]] = b.value[c] / kBoost<T> * b.scale.down;
  for (int i = static_cast<int>(threadIdx.x); i < b.p * b.p; i += b.threads) {
    const int row = i / b.p, c = i % b.p;
    args.U[(index * b.p + row) * b.p + b.p - 1 - b.rank[c]] = b.j[c * b.ld + row];
  }
}

// Grid and workspace: as for svd_block_kernel.
template <class T>
__global__ void __launch_bounds__(kBlockThreads, 1)
    eigh_block_kernel(SvdArguments<T> args, BlockPlan plan, T* workspace) {
  KDOPS_DYNAMIC_SHARED(T, pool);
  KDOPS_SHARED(BlockContext<T>, shared, [1]);
  KDOPS_SHARED(SymmetricLimits<T>, limits, [1]);  // no registers to spare in double precision
  if (!begin_block<true>(args, plan, pool, workspace, shared[0])) return;
  const BlockContext<T>& b = shared[0];
  load_symmetric(args, b, limits[0]);
  if (b.p <= 32)
    symmetric_sweeps<T, 1>(b, limits[0]);
  else if (b.p <= 64)
    symmetric_sweeps<T, 2>(b, limits[0]);
  else
    symmetric_sweeps<T, 4>(b, limits[0]);
  write_eigh(args, b);
}

}  // namespace kdops::svd::gpu
