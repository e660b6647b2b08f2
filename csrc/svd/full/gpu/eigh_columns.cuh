// Eight columns in a warp's registers, for the pairs of eigh_kernels.cuh: place 0 stays, the others
// move along after a step (circle method), so that the pairs are always (c, c + 4).
#pragma once

#include "svd/full/gpu/block_context.cuh"

namespace kdops::svd::gpu {

inline constexpr int kMaxSteps = 7;

// One rotation, and the diagonal entries after it.
template <class T>
struct alignas(16) TurnRecord {
  T x, y, aa, bb;
};

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

}  // namespace kdops::svd::gpu
