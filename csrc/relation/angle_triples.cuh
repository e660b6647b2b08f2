// The triples of rkd_angle, walked twice, so that every sum stays in one thread: thread (i, k) over
// all j for the weights at the anchor, thread (j, k) over all i for the opposite sides and the loss.
// Both walks are parts of one launch, whose blocks take the one or the other.
#pragma once

#include <algorithm>

#include "relation/angle_pairs.cuh"

namespace kdops::relation::gpu {

inline constexpr int kTripleThreads = kRowThreads;

template <class P>  // entries k of a thread, a warp apart
inline constexpr int kWeightEach = sizeof(P) == 16 ? 2 : 1;
template <class P>  // and of a block
inline constexpr int kWeightEntries = kWeightEach<P> * kWarp;
inline constexpr int kWeightAnchors = 4;  // anchors i of a thread
inline constexpr int kWeightStage = 32;   // rows j in shared memory at a time; the warps share them
inline constexpr int kWeightWarps = kTripleThreads / kWarp;

inline constexpr int kSideTile = 32;  // rows and columns (j, k) of a block
template <class P>                    // of a thread, a tile over kSideReg apart
inline constexpr int kSideReg = sizeof(P) == 16 ? 4 : 2;
template <class P>  // groups of threads that share the anchors
inline constexpr int kSideGroups =
    kTripleThreads * kSideReg<P> * kSideReg<P> / (kSideTile * kSideTile);
template <class P>
inline constexpr int kSideStage = P::kFar ? 4 : 16;  // anchors in shared memory at a time

// Shared memory of a block, for one thing after the other.
template <class P>
inline constexpr size_t kTripleBytes =
    std::max({kSideStage<P> * 2 * kSideTile * sizeof(P),
              kSideGroups<P> * kSideTile * kSideTile * sizeof(typename P::Real),
              kWeightStage * kWeightAnchors * sizeof(P),
              kWeightWarps * kWeightAnchors * kWeightEntries<P> * sizeof(typename P::Real)});

// Pair (i, j), or another one where there is none: whoever asks makes no use of it. n^2 < 2^30.
template <class P>
KDOPS_DEVICE P pair_near(const P* pairs, int n, int i, int j) {
  return pairs[static_cast<unsigned>(min(i, n - 1)) * n + min(j, n - 1)];
}

// n rows, their pairs, and what becomes of the triples. w (n, n): w[i][k] = sum over j of
// h_ijk (r_ij - cos_ijk r_ik). m (splits, n, n), upper triangle: the sum over a split's anchors i of
// h r_ij r_ik at [j][k]; losses (side blocks x splits): sum of huber over a block's triples. w and m
// are null where no gradient is wanted.
template <class P>
struct AngleTriples {
  using T = typename P::Real;
  const P* pairs;
  int n, splits;
  T *w = nullptr, *m = nullptr;
  double* losses = nullptr;

  __host__ __device__ static int parts(int n, int size) { return (n + size - 1) / size; }
  __host__ __device__ int tiles() const { return parts(n, kSideTile); }
  __host__ __device__ int side_blocks() const { return tiles() * (tiles() + 1) / 2; }
  __host__ __device__ int loss_count() const { return side_blocks() * splits; }
  __host__ __device__ int weight_columns() const { return parts(n, kWeightEntries<P>); }
  __host__ __device__ int weight_blocks() const {
    return w == nullptr ? 0 : weight_columns() * parts(n, kWeightAnchors);
  }
  __host__ __device__ int blocks() const { return weight_blocks() + loss_count(); }
};

// The rows j that a warp takes of a stage are on their way together, as many as registers hold.
template <class P>
KDOPS_DEVICE void angle_weight_block(const AngleTriples<P>& t, int block, char* pool) {
  using T = typename P::Real;
  constexpr int kRows = kWeightStage / kWeightWarps, kTogether = sizeof(P) == 16 ? 2 : 1;
  constexpr int kEach = kWeightEach<P>, kEntries = kWeightEntries<P>;
  constexpr int kMoves = kWeightStage * kWeightAnchors;  // pairs (i, j) of a stage
  const int thread = static_cast<int>(threadIdx.x), n = t.n, lane = lane_id(), warp = warp_id();
  const int k0 = block % t.weight_columns() * kEntries + lane;
  const int i0 = block / t.weight_columns() * kWeightAnchors;
  auto* stage = reinterpret_cast<P(*)[kWeightAnchors]>(pool);
  P own[kWeightAnchors][kEach];
  T sum[kWeightAnchors][kEach];
#pragma unroll
  for (int a = 0; a < kWeightAnchors; ++a)
#pragma unroll
    for (int e = 0; e < kEach; ++e)
      own[a][e] = pair_near(t.pairs, n, i0 + a, k0 + e * kWarp), sum[a][e] = 0;
  for (int j0 = 0; j0 < n; j0 += kWeightStage) {
    const int a = thread % kWeightAnchors, row = thread / kWeightAnchors;
    const P pair = pair_near(t.pairs, n, i0 + a, j0 + row);
#pragma unroll
    for (int r0 = 0; r0 < kRows; r0 += kTogether) {
      P side[kTogether][kEach];
#pragma unroll
      for (int r = 0; r < kTogether; ++r)
#pragma unroll
        for (int e = 0; e < kEach; ++e)
          side[r][e] = pair_near(t.pairs, n, j0 + warp * kRows + r0 + r, k0 + e * kWarp);
      if (r0 == 0) {
        __syncthreads();  // the pool's last readers are done
        if (thread < kMoves) stage[row][a] = j0 + row < n ? pair : P{};  // zeros add nothing
        __syncthreads();
      }
#pragma unroll
      for (int r = 0; r < kTogether; ++r)
#pragma unroll
        for (int b = 0; b < kWeightAnchors; ++b) {
          const P p = stage[warp * kRows + r0 + r][b];
#pragma unroll
          for (int e = 0; e < kEach; ++e) {
            const P& q = own[b][e];
            const AngleTerm<T> term = angle_term(p, q, opposite_of(side[r][e]));
            sum[b][e] = fma(term.slope, fma(-term.cosine, q.inverse_s, p.inverse_s), sum[b][e]);
          }
        }
    }
  }
  __syncthreads();  // the stage's last readers are done
  auto* sums = reinterpret_cast<T(*)[kWeightAnchors][kEntries]>(pool);
#pragma unroll
  for (int b = 0; b < kWeightAnchors; ++b)
#pragma unroll
    for (int e = 0; e < kEach; ++e) sums[warp][b][e * kWarp + lane] = sum[b][e];
  __syncthreads();
  if (thread >= kWeightAnchors * kEntries) return;
  const int b = thread / kEntries, entry = thread % kEntries;
  const int k = block % t.weight_columns() * kEntries + entry;
  T total = sums[0][b][entry];
#pragma unroll
  for (int w = 1; w < kWeightWarps; ++w) total += sums[w][b][entry];
  if (k < n && i0 + b < n) t.w[static_cast<int64_t>(i0 + b) * n + k] = total;
}

// First column tile >= row tile of the tile with number t in the upper triangle of `tiles` x tiles.
struct SideTile {
  int row, column;
};
KDOPS_DEVICE SideTile side_tile(int t, int tiles) {
  int row = 0;
  for (; t >= tiles - row; ++row) t -= tiles - row;
  return {row, row + t};
}

// A tile of pairs (j, k), for the anchors of a split; both orders of a pair count for the loss.
template <class P>
KDOPS_DEVICE void angle_side_block(const AngleTriples<P>& t, int block, char* pool) {
  using T = typename P::Real;
  constexpr int kReg = kSideReg<P>, kSpan = kSideTile / kReg, kGroups = kSideGroups<P>;
  constexpr int kStage = kSideStage<P>, kMoves = kStage * 2 * kSideTile / kTripleThreads;
  auto* stage = reinterpret_cast<P(*)[2 * kSideTile]>(pool);
  const int n = t.n, split = block / t.side_blocks();
  const SideTile tile = side_tile(block % t.side_blocks(), t.tiles());
  const int j0 = tile.row * kSideTile, k0 = tile.column * kSideTile;
  const int thread = static_cast<int>(threadIdx.x);
  const int tx = thread % kSpan, ty = thread / kSpan % kSpan, group = thread / (kSpan * kSpan);
  decltype(opposite_of(P{})) opposite[kReg][kReg];
  T sum[kReg][kReg];
  double total[1] = {0};
#pragma unroll
  for (int a = 0; a < kReg; ++a)
#pragma unroll
    for (int b = 0; b < kReg; ++b) {
      opposite[a][b] = opposite_of(pair_near(t.pairs, n, j0 + ty + a * kSpan, k0 + tx + b * kSpan));
      sum[a][b] = 0;
    }
  const int anchors = (n + t.splits - 1) / t.splits, begin = split * anchors;
  const int end = min(n, begin + anchors);
  const int place = thread % (2 * kSideTile);
  const int other = place < kSideTile ? j0 + place : k0 + place - kSideTile;
  for (int i0 = begin; i0 < end; i0 += kStage) {
    P pair[kMoves];
#pragma unroll
    for (int e = 0; e < kMoves; ++e) {
      const int i = i0 + (e * kTripleThreads + thread) / (2 * kSideTile);
      pair[e] = pair_near(t.pairs, n, i, other);
      if (other >= n) pair[e] = P{};  // adds nothing to the loss
    }
    __syncthreads();  // the pool's last readers are done
#pragma unroll
    for (int e = 0; e < kMoves; ++e)
      stage[(e * kTripleThreads + thread) / (2 * kSideTile)][place] = pair[e];
    __syncthreads();
    const int here = min(kStage, end - i0);
    T loss[kReg] = {};  // of a stage: float would lose digits over all anchors
#pragma unroll 1        // registers
    for (int i = group; i < here; i += kGroups) {
      P q[kReg];
#pragma unroll
      for (int b = 0; b < kReg; ++b) q[b] = stage[i][kSideTile + tx + b * kSpan];
#pragma unroll
      for (int a = 0; a < kReg; ++a) {
        const P p = stage[i][ty + a * kSpan];
#pragma unroll
        for (int b = 0; b < kReg; ++b) {
          const AngleTerm<T> term = angle_term(p, q[b], opposite[a][b]);
          loss[b] = fma(term.slope, fma(T(-0.5), term.slope, term.difference), loss[b]);
          sum[a][b] = fma(term.slope * q[b].inverse_s, p.inverse_s, sum[a][b]);
        }
      }
    }
#pragma unroll
    for (int b = 1; b < kReg; ++b) loss[0] += loss[b];
    total[0] += loss[0];
  }
  __syncthreads();  // the stage's last readers are done
  auto* sums = reinterpret_cast<T(*)[kSideTile][kSideTile]>(pool);
#pragma unroll
  for (int a = 0; a < kReg; ++a)
#pragma unroll
    for (int b = 0; b < kReg; ++b) sums[group][ty + a * kSpan][tx + b * kSpan] = sum[a][b];
  if (tile.row != tile.column) total[0] *= 2;  // both orders; a tile on the diagonal has both
  block_sums(total);                           // a block barrier: sums is complete
  if (thread == 0) t.losses[block] = total[0];
  if (t.m == nullptr) return;
  T* m = t.m + static_cast<int64_t>(split) * n * n;
  for (int e = thread; e < kSideTile * kSideTile; e += kTripleThreads) {
    const int j = j0 + e / kSideTile, k = k0 + e % kSideTile;
    T whole = sums[0][e / kSideTile][e % kSideTile];
#pragma unroll
    for (int g = 1; g < kGroups; ++g) whole += sums[g][e / kSideTile][e % kSideTile];
    if (k < n && j <= k) m[static_cast<int64_t>(j) * n + k] = whole;
  }
}

// All triples, over all blocks of the launch.
template <class P>
KDOPS_DEVICE void angle_triples(const AngleTriples<P>& t) {
  KDOPS_SHARED(double, memory, [kTripleBytes<P> / sizeof(double)]);
  char* pool = reinterpret_cast<char*>(memory);
  const int weight_blocks = t.weight_blocks(), blocks = t.blocks();
  for (int b = static_cast<int>(blockIdx.x); b < blocks; b += static_cast<int>(gridDim.x)) {
    if (b < weight_blocks)
      angle_weight_block(t, b, pool);
    else
      angle_side_block(t, b - weight_blocks, pool);
  }
}

}  // namespace kdops::relation::gpu
