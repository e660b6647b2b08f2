// One-sided Jacobi on the p columns of W in a block, J (optional) turned along. Columns go in
// blocks of four; a warp takes two blocks of W and J into registers (lane l holds rows l, l + 32,
// ...), makes all 16 pairs across them orthogonal (in the first round of a sweep also the pairs
// within) and puts them back: one block barrier per 16 pairs. Rounds follow the circle method, so
// that every pair of blocks meets once a sweep.
#pragma once

#include "svd/full/gpu/block_context.cuh"

namespace kdops::svd::gpu {

// A step turns four pairs of the eight columns: (c, c ^ kBits). With 4 <= kBits < 8 they lie in
// different blocks, with kBits < 4 in the same one. Lanes 8 q .. 8 q + 7 find the angle of pair q.
template <int kBits>
constexpr int first_of_pair(int q) {
  return kBits >= 4 ? q : kBits == 1 ? 2 * q : q / 2 * 4 + q % 2;
}

// kRowsPerLane: p / 32, rounded up. J is left alone if kWithJ is false.
template <class T, int kRowsPerLane, bool kWithJ>
struct Meeting {
  T w[8][kRowsPerLane], j[8][kRowsPerLane];
  T aa, bb;    // squared norms of the columns of this lane's pair
  bool again;  // this lane saw a large angle

  // Rows outside the matrix are zero. Read at a row inside: a condition would be a branch, and the
  // loads would wait for one another.
  KDOPS_DEVICE static void load(T (&columns)[8][kRowsPerLane], const T* from, int p, int ld,
                                int first, int second) {
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r) {
      const int row = lane_id() + r * kWarp, at = row < p ? row : 0;
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        const T value = from[((c < 4 ? first : second) * kColumnBlock + c % 4) * ld + at];
        columns[c][r] = row < p ? value : T(0);
      }
    }
  }
  KDOPS_DEVICE static void store(const T (&columns)[8][kRowsPerLane], T* to, int p, int ld,
                                 int first, int second) {
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r) {
      const int row = lane_id() + r * kWarp;
      if (row >= p) continue;
#pragma unroll
      for (int c = 0; c < 8; ++c)
        to[((c < 4 ? first : second) * kColumnBlock + c % 4) * ld + row] = columns[c][r];
    }
  }

  // Inner products of the four pairs, each in the lanes of its pair; kOther 0: squared norms of the
  // pairs' first columns, kBits: of the second ones with the first ones.
  template <int kBits, bool kSecond, int kOther>
  KDOPS_DEVICE T products() const {
    T dot[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int c = first_of_pair<kBits>(q) ^ (kSecond ? kBits : 0);
      dot[q] = w[c][0] * w[c ^ kOther][0];
#pragma unroll
      for (int r = 1; r < kRowsPerLane; ++r) dot[q] = fma(w[c][r], w[c ^ kOther][r], dot[q]);
    }
    return scatter_sum(dot);
  }
  template <int kBits>
  KDOPS_DEVICE void measure() {
    aa = products<kBits, false, 0>();
    bb = products<kBits, true, 0>();
  }

  // Without a vote whether any pair turns: a turn by nothing changes nothing, and a branch would keep
  // J's arithmetic from filling the time that the next angle takes.
  template <int kBits>
  KDOPS_DEVICE void turn(const JacobiLimits<T>& limits) {
    const Rotation<T> own = jacobi_rotation(aa, bb, products<kBits, false, kBits>(), limits);
    aa = own.aa, bb = own.bb;
    again = again || own.again;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int a = first_of_pair<kBits>(q), b = a ^ kBits;
      const T x = shuffle(own.x, 8 * q), y = shuffle(own.y, 8 * q);
      rotate(w[a], w[b], x, y);
      if constexpr (kWithJ) rotate(j[a], j[b], x, y);
    }
  }
  KDOPS_DEVICE static void rotate(T (&a)[kRowsPerLane], T (&b)[kRowsPerLane], T x, T y) {
#pragma unroll
    for (int r = 0; r < kRowsPerLane; ++r) {
      const T old = a[r];
      a[r] = fma(x, old, y * b[r]);
      b[r] = fma(x, b[r], -(y * old));
    }
  }

  // The second columns' norms go where the next step has its pairs.
  template <int kFrom, int kTo>
  KDOPS_DEVICE void pass_on() {
    bb = shuffle_xor(bb, 8 * (kFrom ^ kTo));
  }
};

// One meeting of two blocks of columns. True in lanes that saw a large angle. Norms are measured in
// the first round of a sweep and follow the turns until the next one, in b.value: a turn that takes
// away much of a column's length, and leaves its norm inexact, asks for another sweep.
template <int kRowsPerLane, bool kWithJ, class T>
KDOPS_DEVICE bool meet(const BlockContext<T>& b, T* w, T* j, T* norms, int first, int second,
                       bool within) {
  Meeting<T, kRowsPerLane, kWithJ> m;
  m.again = false;
  m.load(m.w, w, b.p, b.ld, first, second);
  if constexpr (kWithJ) m.load(m.j, j, b.p, b.ld, first, second);
  const int pair = lane_id() / 8;
  T *norm_a = norms + first * kColumnBlock + pair, *norm_b = norms + second * kColumnBlock;
  if (within) {
    m.template measure<1>();
    m.template turn<1>(b.limits);
    m.template measure<2>();
    m.template turn<2>(b.limits);
    m.template measure<3>();
    m.template turn<3>(b.limits);
    m.template measure<4>();
  } else {
    m.aa = *norm_a, m.bb = norm_b[pair];
  }
  m.template turn<4>(b.limits);
  m.template pass_on<4, 5>();
  m.template turn<5>(b.limits);
  m.template pass_on<5, 6>();
  m.template turn<6>(b.limits);
  m.template pass_on<6, 7>();
  m.template turn<7>(b.limits);
  sync_warp();  // lanes have read numbers that others write
  if (lane_id() % 8 == 0) *norm_a = m.aa, norm_b[pair ^ 3] = m.bb;
  m.store(m.w, w, b.p, b.ld, first, second);
  if constexpr (kWithJ) m.store(m.j, j, b.p, b.ld, first, second);
  return m.again;
}

// meet(first, second, within) on all pairs of blocks of columns, until it reports no large angle
// for a whole sweep. Ends with a block barrier.
template <class T, class Meet>
KDOPS_DEVICE void block_sweeps(const BlockContext<T>& b, const Meet& meet) {
  const int blocks = padded_columns(b.p) / kColumnBlock, pairs = blocks / 2, circle = blocks - 1;
  bool again = true;
#pragma unroll 1
  for (int sweep = 0; sweep < kMaxSweeps && again; ++sweep) {
    again = false;
#pragma unroll 1
    for (int round = 0; round < circle; ++round) {
#pragma unroll 1
      for (int pair = warp_id(); pair < pairs; pair += b.threads / kWarp) {
        const int ahead = round + pair, behind = round - pair;
        const int one = pair == 0 ? circle : ahead < circle ? ahead : ahead - circle;
        const int other = behind < 0 ? behind + circle : behind;
        again = meet(min(one, other), max(one, other), round == 0) || again;
      }
      __syncthreads();
    }
    again = block_any(again);
  }
}

// Until all columns of W are orthogonal. W and J as pointers of their own: those that are seen to
// come from shared memory need no generic addresses.
template <int kRowsPerLane, bool kMayHaveJ, class T>
KDOPS_DEVICE void jacobi_sweeps(const BlockContext<T>& b, T* w, T* j, T* norms) {
  if (kMayHaveJ && j != nullptr) {
    block_sweeps(b, [&](int first, int second, bool within) {
      return meet<kRowsPerLane, kMayHaveJ>(b, w, j, norms, first, second, within);
    });
  } else {
    block_sweeps(b, [&](int first, int second, bool within) {
      return meet<kRowsPerLane, false>(b, w, j, norms, first, second, within);
    });
  }
}

}  // namespace kdops::svd::gpu
