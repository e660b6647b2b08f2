// The two products of a relation loss on CUDA, on the gram room's register tile: the Gram matrices of
// the centred rows, and the Laplacian of the weights times the centred rows. Rows are centred and
// scaled on their way into shared memory, and what follows the last product is done where it is
// written: neither costs a launch. Full float precision whatever torch's TF32 setting.
#pragma once

#include "gram/gram_tile.cuh"
#include "relation/given_rows.cuh"

namespace kdops::relation::gpu {

using kdops::gram::gpu::GramPlace;
using kdops::gram::gpu::GramProblem;
using kdops::gram::gpu::GramSpot;
using kdops::gram::gpu::GramTile;

// 256 threads, few stages. The gradient has one part only, and a batch too few rows to fill the device
// with larger tiles; in a Gram matrix they halve the loads, but a larger one of doubles would spill.
using GradientTile = GramTile<32, 32, 4, 32, 4>;
template <class T>
using RelationTile = std::conditional_t<sizeof(T) == 4, GramTile<64, 64, 8, 32, 4>, GradientTile>;

// Operands: at(channel, depth), zero outside, without a branch, behind which loads would wait for each
// other. kAdjacent: whether channels are neighbours in memory.
template <class T, bool kTurned>
struct CentredOperand {
  static constexpr bool kAdjacent = kTurned;
  Side<T> side;
  T scale;

  KDOPS_DEVICE T at(int channel, int depth) const {
    const int row = kTurned ? depth : channel, column = kTurned ? channel : depth;
    const bool inside = row < side.n && column < side.d;
    const int near = max(0, min(column, side.d - 1));
    const T value = side.row(min(row, side.n - 1))[near];
    const T centred = (value - side.mean[near]) * scale;
    return inside ? centred : T(0);
  }
};
template <class T>
struct SquareOperand {
  static constexpr bool kAdjacent = false;
  const T* data;
  int n;

  KDOPS_DEVICE T at(int channel, int depth) const {
    const bool inside = channel < n && depth < n;
    const T value = data[inside ? static_cast<int64_t>(channel) * n + depth : 0];
    return inside ? value : T(0);
  }
};

// A stage of an operand on its way through registers.
template <int kChannels, class Tile, class T>
struct StageOnItsWay {
  static constexpr int kThreads = Tile::kThreads;
  static constexpr int kCount = kChannels * Tile::kDepth / kThreads;
  T values[kCount];

  template <class Operand>
  KDOPS_DEVICE void fetch(const Operand& operand, int channel, int depth) {
    const GramSpot first = gram::gpu::gram_first<kChannels>(Operand::kAdjacent);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const GramSpot d = gram::gpu::gram_distance<kChannels, kThreads>(i, Operand::kAdjacent);
      values[i] = operand.at(channel + first.channel + d.channel, depth + first.depth + d.depth);
    }
  }
};

// acc = a bT over the depths begin..end of the tile at `place`; group 0 has the sums.
template <class Tile, class T, class A, class B>
KDOPS_DEVICE void relation_multiply(const GramPlace& place, const A& a, const B& b,
                                    T (&acc)[Tile::kReg][Tile::kReg]) {
  KDOPS_SHARED(T, stages, [2][Tile::kDepth * Tile::kPitch]);
  StageOnItsWay<Tile::kRows, Tile, T> next_a;
  StageOnItsWay<Tile::kCols, Tile, T> next_b;
  const auto fetch = [&](int k) {
    next_a.fetch(a, place.row, k);
    next_b.fetch(b, place.col, k);
  };
  const auto put = [&](T* stage) {
    gram::gpu::gram_stage<Tile::kRows, Tile::kThreads, Tile::kPitch>(stage, A::kAdjacent,
                                                                     next_a.values);
    gram::gpu::gram_stage<Tile::kCols, Tile::kThreads, Tile::kPitch>(stage + Tile::kRows,
                                                                     B::kAdjacent, next_b.values);
  };
  fetch(place.begin);
  put(stages[0]);
  int current = 0;
  for (int k = place.begin; k < place.end; k += Tile::kDepth, current ^= 1) {
    const bool more = k + Tile::kDepth < place.end;
    __syncthreads();  // this stage is complete; the other one's readers are done
    if (more) fetch(k + Tile::kDepth);
    gram::gpu::gram_multiply<Tile>(stages[current], acc);
    if (more) put(stages[current ^ 1]);
  }
  gram::gpu::gram_join_groups<Tile>(&stages[0][0], acc);
}

// p: the symmetric product of one side, item 0 the student. Writes a part of its Gram matrix and of
// the norms; the scale; and clears near, which may be null, for rkd_angle_pairs_kernel.
template <class T>
__global__ void __launch_bounds__(RelationTile<T>::kThreads)
    relation_gram_kernel(GramProblem<T> p, Sides<T> sides, int* near) {
  using Tile = RelationTile<T>;
  const GramPlace place = gram::gpu::gram_place<Tile>(p);
  const Side<T> side = sides.at(place.item);
  const int thread = static_cast<int>(threadIdx.x);
  T top = 0;
  for (int b = thread; b < sides.column_blocks; b += Tile::kThreads) top = max(top, side.tops[b]);
  const T scale = row_scale(block_max<Tile::kThreads>(top));
  if (thread == 0 && place.row == 0 && place.col == 0 && place.split == 0) {
    *side.scale = scale;
    if (near != nullptr && place.item == 0) *near = 0;
  }
  T acc[Tile::kReg][Tile::kReg] = {};
  const CentredOperand<T, false> rows{side, scale};
  relation_multiply<Tile>(place, rows, rows, acc);
  T* out = side.gram + static_cast<int64_t>(place.split) * p.rows * p.rows;
  T* norms = side.norms + static_cast<int64_t>(place.split) * p.rows;
  gram::gpu::gram_for_entries<Tile>(p, place, acc, [&](int row, int col, T value) {
    out[static_cast<int64_t>(row) * p.rows + col] = value;
    out[static_cast<int64_t>(col) * p.rows + row] = value;
    if (row == col) norms[row] = value;
  });
}

// Rows of the gradient whose product cancels are summed from the differences of the given rows.
template <class T>
struct LossyRows {
  const T* laplacian;
  Side<T> rows;
  const int* lossy;

  KDOPS_DEVICE LossyRows found() const { return *this; }
  KDOPS_DEVICE bool again(int64_t i) const { return lossy[i] != 0; }
  KDOPS_DEVICE T at(int64_t i, int c) const {
    const double scale = *rows.scale;
    const T rest = static_cast<T>(scale / scale_inside<T>(scale)), unit = static_cast<T>(scale);
    const T* weights = laplacian + i * rows.n;
    const T mine = rows.row(i)[c] * unit;
    T sum = 0;
    for (int j = 0; j < rows.n; ++j)
      if (weights[j] != T(0)) sum = fma(-weights[j], mine - rows.row(j)[c] * unit, sum);
    return sum * rest;
  }
};

// p: the Laplacian (n, n) times the centred rows, not split, with the part of the scale that the
// Laplacian has not taken: the gradient (n, d). Some rows are the others', which find out which.
template <class T, class Others>
__global__ void __launch_bounds__(GradientTile::kThreads)
    relation_gradient_kernel(GramProblem<T> p, const T* __restrict__ laplacian, Side<T> rows,
                             Others others, T* __restrict__ grad) {
  using Tile = GradientTile;
  const GramPlace place = gram::gpu::gram_place<Tile>(p);
  const double scale = *rows.scale;
  const T rest = static_cast<T>(scale / scale_inside<T>(scale));
  T acc[Tile::kReg][Tile::kReg] = {};
  relation_multiply<Tile>(place, SquareOperand<T>{laplacian, rows.n},
                          CentredOperand<T, true>{rows, static_cast<T>(scale)}, acc);
  const Others replaced = others.found();
  gram::gpu::gram_for_entries<Tile>(p, place, acc, [&](int row, int col, T value) {
    if (!replaced.again(row)) grad[static_cast<int64_t>(row) * p.cols + col] = value * rest;
  });
  for (int e = static_cast<int>(threadIdx.x); e < Tile::kRows * Tile::kCols; e += Tile::kThreads) {
    const int row = place.row + e / Tile::kCols, col = place.col + e % Tile::kCols;
    if (row < p.rows && col < p.cols && replaced.again(row))
      grad[static_cast<int64_t>(row) * p.cols + col] = replaced.at(row, col);
  }
}

}  // namespace kdops::relation::gpu
