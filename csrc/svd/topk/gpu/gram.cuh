// The Gram matrix of one matrix, by its block.
#pragma once

#include "svd/topk/gpu/context.cuh"

namespace kdops::svd::gpu {

// Adds the tiles of `splits` neighbouring threads; a thread keeps 64 / splits of the sums, from
// tile[0] on, and the place of the first of them is returned.
template <int kHalf, class T>
KDOPS_DEVICE int fold_tile(T (&tile)[64], int splits) {
  if constexpr (kHalf >= 2) {
    constexpr int kBits = 32 / kHalf;
    if (kBits >= splits) return 0;
    const bool upper = threadIdx.x & kBits;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const T keep = upper ? tile[i + kHalf] : tile[i], send = upper ? tile[i] : tile[i + kHalf];
      tile[i] = keep + shuffle_xor(send, kBits);
    }
    return (upper ? kHalf : 0) + fold_tile<kHalf / 2>(tile, splits);
  }
  return 0;
}

// gram (p x p, rows ld apart) = B^T B. `splits` neighbouring threads share an 8 x 8 tile of the
// lower half and take every splits-th row; their sums meet by shuffles, halving what each holds.
template <class T>
KDOPS_DEVICE void gram_matrix(const TopkContext<T>& t, const TopkPlan& plan, const Oriented<T>& B,
                              T* gram, int ld) {
  const int tiles = (t.p + kGramTile - 1) / kGramTile, thread = static_cast<int>(threadIdx.x);
  const int mine = thread / plan.splits, split = thread % plan.splits;
  int tile_row = 0;
  while ((tile_row + 1) * (tile_row + 2) / 2 <= mine) ++tile_row;
  const int tile_column = mine - tile_row * (tile_row + 1) / 2;
  const bool active = tile_row < tiles;
  T sum[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) sum[i] = T(0);
#pragma unroll 1
  for (int64_t row0 = 0; row0 < B.length; row0 += plan.rows) {
    B.stage(t.pool, plan, row0);
    const int end = active ? static_cast<int>(min(int64_t(plan.rows), B.length - row0)) : 0;
#pragma unroll 1
    for (int i = split; i < end; i += plan.splits) {
      T a[8], b[8];
      load_numbers(t.pool + i * plan.stride + tile_row * kGramTile, a);
      load_numbers(t.pool + i * plan.stride + tile_column * kGramTile, b);
#pragma unroll
      for (int q = 0; q < 64; ++q) sum[q] = fma(a[q / 8], b[q % 8], sum[q]);
    }
    __syncthreads();
  }
  const int offset = fold_tile<32>(sum, plan.splits);
  const int held = active ? 64 / plan.splits : 0;
#pragma unroll
  for (int q = 0; q < 64; ++q) {
    if (q >= held) break;
    const int i = tile_row * kGramTile + (offset + q) / 8;
    const int j = tile_column * kGramTile + (offset + q) % 8;
    if (i >= t.p || j > i) continue;
    gram[i * ld + j] = sum[q];
    gram[j * ld + i] = sum[q];
  }
  __syncthreads();
}

}  // namespace kdops::svd::gpu
