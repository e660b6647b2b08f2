// The long factor Q J from the reflectors that qr.cuh left in its place: every column of J on its own,
// in registers, tile by tile from the last one to the first p rows.
#pragma once

#include "svd/full/gpu/qr.cuh"

namespace kdops::svd::gpu {

// tau of the staged reflectors of kTile rows each, behind them: a warp each.
template <bool kSquare, int kTile, class T>
KDOPS_DEVICE void stage_tau(T* staged) {
#pragma unroll 1
  for (int k = warp_id(); k < kStagedNumbers / kTile; k += kBlockThreads / kWarp) {
    T square = T(0);
#pragma unroll
    for (int i = 0; i < kTile; i += kWarp) {
      const T v = staged[k * kTile + i + lane_id()];
      square = fma(v, v, square);
    }
    square = warp_sum(square);
    if (lane_id() == 0) staged[kStagedNumbers + k] = T(2) / (kSquare ? square : 1 + square);
  }
}

// y = H_0 .. H_{p-1} y of the square or of a tile, together with entries of J's column in the latter.
// kStaged reflectors at a time come through shared memory, the next ones are fetched meanwhile.
template <bool kSquare, class T, int kSide, int kRows>
KDOPS_DEVICE void apply(const BlockContext<T>& b, Slices<T, kSide, kRows>& own, T* j, T* staged,
                        int64_t row0, int rows) {
  using Own = Slices<T, kSide, kRows>;
  T ahead[Own::kFetches];
  const T* reflectors = b.reflector(0, row0, rows);
  const int64_t apart = b.wide ? b.length : rows;
  const auto fetch = [&](int first) {
#pragma unroll
    for (int q = 0; q < Own::kFetches; ++q) {
      const unsigned i = threadIdx.x + q * kBlockThreads;
      const int k = first + static_cast<int>(i / Own::kTile),
                row = static_cast<int>(i % Own::kTile);
      const bool inside = k >= 0 && k < b.p && row < rows;
      const T value = reflectors[inside ? k * apart + row : 0];
      ahead[q] = inside ? value : T(0);
    }
  };
  const int last = (b.p - 1) / Own::kStaged * Own::kStaged;
  fetch(last);
#pragma unroll 1
  for (int first = last; first >= 0; first -= Own::kStaged) {
    __syncthreads();
#pragma unroll
    for (int q = 0; q < Own::kFetches; ++q)
      staged[static_cast<int>(threadIdx.x) + q * kBlockThreads] = ahead[q];
    __syncthreads();
    fetch(first - Own::kStaged);
    stage_tau<kSquare, Own::kTile>(staged);
    __syncthreads();
    if (own.column >= b.p) continue;
#pragma unroll 1
    for (int k = min(first + Own::kStaged, b.p) - 1; k >= first; --k) {
      const T* v = staged + (k - first) * Own::kTile;
      T* entry = j + own.column * b.ld + k;
      const bool heads = !kSquare && own.keeps(k);
      const T head = heads ? *entry : T(0),
              shift = own.reflect(v, staged[kStagedNumbers + k - first], head);
      if (heads) *entry = head - shift;
    }
  }
  __syncthreads();
}

// The long factor Q J, column c times sign[c] to place rank[c] of the output.
template <int kSide, class T>
KDOPS_DEVICE void write_long(const BlockContext<T>& b) {
  KDOPS_DYNAMIC_SHARED(T, pool);  // b.scratch
  const auto put = [&](auto& own, int64_t row0, int rows) {
    if (own.column >= b.p) return;
    const int rank = b.rank[own.column];
    const T sign = b.sign[own.column];
    T* to = b.long_out + (b.wide ? rank * b.length + row0 : row0 * b.p + rank);
    const int stride = b.wide ? 1 : b.p;
    if (rows == own.kTile) {
      own.each_place(to, stride, rows, [&](T& y, T* at, bool) { *at = y * sign; });
    } else {
      own.each_place(to, stride, rows, [&](T& y, T* at, bool inside) {
        if (inside) *at = y * sign;
      });
    }
  };
  using Own = TileSlices<T, kSide>;
  const int64_t tiles = (b.length - b.p + Own::kTile - 1) / Own::kTile;
#pragma unroll 1
  for (int64_t t = tiles - 1; t >= 0; --t) {
    const int64_t row0 = b.p + t * Own::kTile;
    const int rows = static_cast<int>(min(int64_t(Own::kTile), b.length - row0));
    Own own;
#pragma unroll
    for (int r = 0; r < kTileRows<T>; ++r) own.y[r] = T(0);
    apply<false>(b, own, b.j, pool, row0, rows);
    put(own, row0, rows);
  }
  SquareSlices<T, kSide> own;
  own.each_place(b.j + own.column * b.ld, 1, own.column < b.p ? b.p : 0,
                 [&](T& y, const T* at, bool inside) {
                   const T value = *(inside ? at : b.j);
                   y = inside ? value : T(0);
                 });
  apply<true>(b, own, b.j, pool, 0, b.p);
  put(own, 0, b.p);
}

}  // namespace kdops::svd::gpu
