// One-sided Jacobi on the p columns of W in a block, J (optional) turned along. Columns go in
// blocks of four; a warp takes two blocks of W into registers (lane l holds rows l, l + 32, ...),
// makes all 16 pairs across them orthogonal (in the first round of a sweep also the pairs within),
// puts them back and replays the rotations on J: one block barrier per 16 pairs, and a quarter of
// the shared memory traffic of a pair-wise sweep. Rounds follow the circle method, so that every
// pair of blocks meets once a sweep.
#pragma once

#include "svd/full/gpu/block_context.cuh"

namespace kdops::svd::gpu {
using namespace kdops::gpu;

inline constexpr int kColumnBlock = 4, kMaxSteps = 7;

// One rotation, and the squared norms after it.
template <class T>
struct alignas(16) TurnRecord {
  T x, y, aa, bb;
};

// Places of the eight columns after each step of a full round (28 pairs, circle method): place 0
// stays, the others move along 1 <- 2 <- 3 <- 7 <- 6 <- 5 <- 4 <- 1. Pairs are (c, c + 4). Bit
// 4 * step + c is set where the column in place c is the earlier one.
constexpr unsigned earlier_first_bits() {
  int id[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  unsigned bits = 0;
  for (int step = 0; step < kMaxSteps; ++step) {
    for (int c = 0; c < 4; ++c) bits |= (id[c] < id[c + 4] ? 1u : 0u) << (4 * step + c);
    const int first = id[1];
    id[1] = id[2], id[2] = id[3], id[3] = id[7], id[7] = id[6], id[6] = id[5], id[5] = id[4];
    id[4] = first;
  }
  return bits;
}
inline constexpr unsigned kEarlierFirst = earlier_first_bits();

// kRowsPerLane: p / 32, rounded up.
template <class T, int kRowsPerLane>
struct EightColumns {
  T value[8][kRowsPerLane];

  // Columns 0..3 are those of block `first`, 4..7 of block `second`; zeros outside the matrix.
  template <class Visit>
  KDOPS_DEVICE void visit(const BlockContext<T>& b, int first, int second, const Visit& visit) {
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const int column = (c < 4 ? first : second) * kColumnBlock + c % 4;
#pragma unroll
      for (int r = 0; r < kRowsPerLane; ++r) {
        const int row = lane_id() + r * kWarp;
        visit(value[c][r], column < b.p && row < b.p, column * b.ld + row);
      }
    }
  }
  KDOPS_DEVICE void load(const BlockContext<T>& b, const T* from, int first, int second) {
    visit(b, first, second, [&](T& x, bool inside, int at) { x = inside ? from[at] : T(0); });
  }
  KDOPS_DEVICE void store(const BlockContext<T>& b, T* to, int first, int second) {
    visit(b, first, second, [&](T& x, bool inside, int at) {
      if (inside) to[at] = x;
    });
  }

  KDOPS_DEVICE void rotate(int c, T x, T y) {
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r) {
      const T a = value[c][r], b = value[c + 4][r];
      value[c][r] = fma(x, a, y * b);
      value[c + 4][r] = fma(x, b, -(y * a));
    }
  }
  KDOPS_DEVICE void move(int to, int from) {
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r) value[to][r] = value[from][r];
  }
  // To the next step of a full round, or of a round across the two blocks (4 <- 5 <- 6 <- 7 <- 4).
  KDOPS_DEVICE void advance(bool within) {
    T saved[kRowsPerLane];
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r) saved[r] = within ? value[1][r] : value[4][r];
    if (within) {
      move(1, 2), move(2, 3), move(3, 7), move(7, 6), move(6, 5), move(5, 4);
    } else {
      move(4, 5), move(5, 6), move(6, 7);
    }
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r) {
      value[4][r] = within ? saved[r] : value[4][r];
      value[7][r] = within ? value[7][r] : saved[r];
    }
  }
};

// What a warp knows of its eight columns of W beside their entries.
template <class T>
struct PairState {
  T norm[8];              // squared, the same in every lane
  TurnRecord<T>* record;  // shared, [kMaxSteps][4]
  unsigned turned;        // bit per step: some pair turned
  bool again;             // this lane saw a large angle

  KDOPS_DEVICE void advance(bool within) {
    const T first = norm[1], fourth = norm[4];
    if (within) {
      norm[1] = norm[2], norm[2] = norm[3], norm[3] = norm[7], norm[7] = norm[6];
      norm[6] = norm[5], norm[5] = fourth, norm[4] = first;
    } else {
      norm[4] = norm[5], norm[5] = norm[6], norm[6] = norm[7], norm[7] = fourth;
    }
  }
};

// Makes the four pairs (c, c + 4) of W orthogonal; lanes 8 c .. 8 c + 7 compute pair c's angle.
template <class T, int kRowsPerLane>
KDOPS_DEVICE void turn_pairs(EightColumns<T, kRowsPerLane>& w, PairState<T>& state, bool within,
                             int step, const JacobiLimits<T>& limits) {
  T dot[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    dot[c] = T(0);
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r) dot[c] = fma(w.value[c][r], w.value[c + 4][r], dot[c]);
  }
  const int mine = lane_id() / 8;
  T aa = state.norm[0], bb = state.norm[4];
#pragma unroll
  for (int c = 1; c < 4; ++c) {
    aa = mine == c ? state.norm[c] : aa;
    bb = mine == c ? state.norm[c + 4] : bb;
  }
  const bool ordered = !within || (kEarlierFirst >> (4 * step + mine) & 1);
  const Rotation<T> turn =
      jacobi_rotation(ordered ? aa : bb, ordered ? bb : aa, scatter_sum(dot), limits);
  state.again = state.again || turn.again;
  if (!warp_any(turn.turns)) return;
  TurnRecord<T>* record = state.record + 4 * step;
  if (lane_id() % 8 == 0)
    record[mine] = {turn.x, ordered ? turn.y : -turn.y, ordered ? turn.aa : turn.bb,
                    ordered ? turn.bb : turn.aa};
  sync_warp();
  state.turned |= 1u << step;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const TurnRecord<T> r = record[c];
    state.norm[c] = r.aa;
    state.norm[c + 4] = r.bb;
    w.rotate(c, r.x, r.y);
  }
}

// One meeting of two blocks of columns. True in lanes that saw a large angle.
template <class T, int kRowsPerLane>
KDOPS_DEVICE bool meet(const BlockContext<T>& b, int first, int second, bool within) {
  EightColumns<T, kRowsPerLane> columns;
  PairState<T> state;
  state.record = reinterpret_cast<TurnRecord<T>*>(b.scratch) + warp_id() * (4 * kMaxSteps);
  state.turned = 0, state.again = false;
  columns.load(b, b.w, first, second);
  T sums[8];
#pragma unroll
  for (int c = 0; c < 8; ++c) {
    sums[c] = T(0);
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r)
      sums[c] = fma(columns.value[c][r], columns.value[c][r], sums[c]);
  }
  const T sum = scatter_sum(sums);
#pragma unroll
  for (int c = 0; c < 8; ++c) state.norm[c] = shuffle(sum, c * 4);
  const int steps = within ? kMaxSteps : 4;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    turn_pairs(columns, state, within, step, b.limits);
    columns.advance(within);
    state.advance(within);
  }
  if (state.turned == 0) return state.again;
  columns.store(b, b.w, first, second);
  if (b.j != nullptr) {
    columns.load(b, b.j, first, second);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      if (state.turned >> step & 1) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const TurnRecord<T> r = state.record[4 * step + c];
          columns.rotate(c, r.x, r.y);
        }
      }
      columns.advance(within);
    }
    columns.store(b, b.j, first, second);
  }
  sync_warp();  // the records are free again
  return state.again;
}

// Sweeps until all columns of W are orthogonal, the longest first. Ends with a block barrier.
template <class T, int kRowsPerLane>
KDOPS_DEVICE void jacobi_sweeps(const BlockContext<T>& b) {
  const int blocks = (b.p + 2 * kColumnBlock - 1) / (2 * kColumnBlock) * 2, pairs = blocks / 2;
  bool again = true;
#pragma unroll 1
  for (int sweep = 0; sweep < kMaxSweeps && again; ++sweep) {
    again = false;
#pragma unroll 1
    for (int round = 0; round < blocks - 1; ++round) {
#pragma unroll 1
      for (int pair = warp_id(); pair < pairs; pair += b.threads / kWarp) {
        const int one = pair == 0 ? blocks - 1 : (round + pair) % (blocks - 1);
        const int other = (round - pair + blocks - 1) % (blocks - 1);
        again = meet<T, kRowsPerLane>(b, min(one, other), max(one, other), round == 0) || again;
      }
      __syncthreads();
    }
    again = block_any(again);
  }
}

}  // namespace kdops::svd::gpu
