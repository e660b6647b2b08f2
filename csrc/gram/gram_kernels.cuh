// One batched product serves gram and its backward:
//   out[b, i, j] = scale * sum_k a[b, i, k] * b[b, j, k]
// with free strides, so that i, j, k are channels and positions in whatever order the op needs
// (gram: k = positions; backward: k = channels of the cotangent). A block computes one tile
// (gram_tile.cuh). The depth may be split over `splits` blocks; gram_reduce_kernel then adds their
// partial sums, always in the same order. Planned by gram_plan.cuh, launched by gram_launch.cuh.
#pragma once

#include "gram/gram_tile.cuh"

namespace kdops::gram::gpu {

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kThreads) gram_product_kernel(GramProblem<T> p) {
  using A = Accum<T>;
  KDOPS_SHARED(A, stages, [2][Tile::kDepth * Tile::kPitch]);
  const GramPlace place = gram_place<Tile>(p);
  A acc[Tile::kReg][Tile::kReg] = {};
  const GramOperand<T> a = gram_item(p.a, place), b = gram_item(p.b, place);
  const auto source = [&](int k) { return GramSource<T>{a, b, k, place.end}; };
  gram_accumulate<Tile>(p, place, source, [](int) {}, stages, acc);
  gram_join_groups<Tile>(&stages[0][0], acc);
  gram_write<Tile>(p, place, acc);
}

// out = scale * sum over the splits, element by element, in ascending order.
template <class T>
__global__ void __launch_bounds__(256)
    gram_reduce_kernel(const Accum<T>* __restrict__ partial, T* __restrict__ out, int64_t count,
                       int64_t splits, Accum<T> scale) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  Accum<T> sum = partial[i];
  for (int64_t s = 1; s < splits; ++s) sum += partial[s * count + i];
  out[i] = from_accum<T>(scale * sum);
}

}  // namespace kdops::gram::gpu
