// Householder QR of a tall matrix by one block (Q: long_factor.cuh). Thread (column,
// slice) holds rows of its column in registers, the slices of a column are neighbouring lanes and
// add by shuffles. Rows 0..p-1 are reduced first; the rest comes in tiles, each eliminated against
// the triangle R in shared memory. Backward stable for every input, also rank-deficient, and R needs
// no second look at the long side. Reflectors are kept in the long output (BlockContext::reflector)
// until write_long replaces them with the result.
#pragma once

#include "svd/full/gpu/block_context.cuh"
#include "svd/shared/reflector.h"

namespace kdops::svd::gpu {

// kSide columns by kBlockThreads / kSide slices of kRows rows, four neighbours at a time.
template <class T, int kSide, int kRows>
struct Slices {
  static constexpr int kSlices = kBlockThreads / kSide, kTile = kRows * kSlices;
  // Reflectors that are staged together when Q is applied: eight numbers a thread.
  static constexpr int kStaged = kStagedNumbers / kTile, kFetches = kStagedNumbers / kBlockThreads;
  static_assert(kStaged >= 1 && kRows % 4 == 0);

  int column, slice;
  T y[kRows];

  KDOPS_DEVICE Slices()
      : column(static_cast<int>(threadIdx.x) / kSlices),
        slice(static_cast<int>(threadIdx.x) % kSlices) {}
  KDOPS_DEVICE int row(int r) const { return (r / 4 * kSlices + slice) * 4 + r % 4; }
  // visit(y, its place, whether it is inside) along `rows` rows that are `stride` apart from `first`
  // on. One address that moves: as many as rows would take the registers of y.
  template <class Pointer, class Visit>
  KDOPS_DEVICE void each_place(Pointer first, int stride, int rows, const Visit& visit) {
    const int rest = rows - 4 * slice;
    first += 4 * slice * stride;
    const int jump = (4 * kSlices - 3) * stride;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      visit(y[r], first, r / 4 * kSlices * 4 + r % 4 < rest);
      first += r % 4 == 3 ? jump : stride;
    }
  }
  // Of the lanes of a column, the one that reads and writes entry k of what all of them share.
  KDOPS_DEVICE bool keeps(int k) const { return k % kSlices == slice; }

  // Reads v where y leaves no registers for a copy of it: a few numbers at a time.
  template <class Visit>
  KDOPS_DEVICE void each_entry(const T* v, const Visit& visit) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (sizeof(y) > 256 && r % 8 == 0) sync_warp<kSlices>();
      visit(r, v[row(r)]);
    }
  }
  // y -= shift v with shift = tau (head + v . y); the shift. `head`: of the lane that keeps it.
  // A v that is kept between the passes halves what shared memory has to give; without a copy the
  // compiler would read it anew, since the sum's shuffles might have changed it.
  KDOPS_DEVICE T reflect(const T* v, T tau, T head) {
    constexpr bool kKept = sizeof(y) <= 128;
    T kept[kKept ? kRows : 1], dot[4] = {head, T(0), T(0), T(0)};
    each_entry(v, [&](int r, T entry) {
      if constexpr (kKept) kept[r] = entry;
      dot[r % 4] = fma(entry, y[r], dot[r % 4]);
    });
    const T shift = tau * warp_sum<kSlices>((dot[0] + dot[1]) + (dot[2] + dot[3]));
    if constexpr (kKept) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) y[r] = fma(-shift, kept[r], y[r]);
    } else {
      each_entry(v, [&](int r, T entry) { y[r] = fma(-shift, entry, y[r]); });
    }
    return shift;
  }
};

template <class T>
inline constexpr int kTileRows = sizeof(T) == 4 ? 32 : 16;
template <int kSide>
inline constexpr int kSquareRows = kSide <= 32 ? 4 : kSide * kSide / kBlockThreads;
template <class T, int kSide>
using SquareSlices = Slices<T, kSide, kSquareRows<kSide>>;
template <class T, int kSide>
using TileSlices = Slices<T, kSide, kTileRows<T>>;

// A later reader of v knows tau = 2 / (1 + |v_2|^2): where there is nothing to reflect, v = (1; 0)
// flips a sign instead of doing nothing. Harmless.
template <class T>
KDOPS_DEVICE Reflector<T> readable_reflector(T alpha, T tail_squared) {
  const Reflector<T> h = make_reflector(alpha, tail_squared);
  return h.tau == T(0) ? Reflector<T>{-alpha, T(2), T(0)} : h;
}

// Makes the reflector of column k, by the lanes of this column: v to `to`, its tau behind it.
// kSquare: rows up to k belong to R, which takes the column's new entry; otherwise that is *diagonal.
template <bool kSquare, class T, int kSide, int kRows>
KDOPS_DEVICE void publish(Slices<T, kSide, kRows>& own, int k, T* diagonal, T* to) {
  using Own = Slices<T, kSide, kRows>;
  constexpr int kSums = sizeof(own.y) >= 256 ? 2 : 4;
  T alpha = !kSquare && own.keeps(k) ? *diagonal : T(0), squares[4] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = own.row(r);
    if (kSquare && row == k) alpha = own.y[r];
    const T tail = !kSquare || row > k ? own.y[r] : T(0);
    squares[r % kSums] = fma(tail, tail, squares[r % kSums]);
  }
  alpha = warp_sum<Own::kSlices>(alpha);
  const T square = warp_sum<Own::kSlices>((squares[0] + squares[1]) + (squares[2] + squares[3]));
  const Reflector<T> h = readable_reflector(alpha, square);
  // a k of its own, and in parts, or the compiler keeps from the first loop what it cannot hold
  const int here = sizeof(own.y) >= 256 ? shuffle<Own::kSlices>(k, 0) : k;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = own.row(r);
    if (sizeof(own.y) >= 256 && r % 8 == 0) sync_warp<Own::kSlices>();
    T v = own.y[r] * h.scale;
    if (kSquare && row <= here) v = row == here ? T(1) : T(0);
    to[row] = v;
    if (kSquare && row == here) own.y[r] = h.beta;
  }
  if (own.slice == 0) to[Own::kTile] = h.tau;
  if (!kSquare && own.keeps(k)) *diagonal = h.beta;
}

// Reduces what the threads hold: rows 0..p-1 of B, or a tile that starts at row0 against R in W. One
// barrier a column: whoever holds the next one makes its reflector before the others need it.
template <bool kSquare, class T, int kSide, int kRows>
KDOPS_DEVICE void factor(const BlockContext<T>& b, Slices<T, kSide, kRows>& own, T* w, T* buffers,
                         int64_t row0, int rows) {
  using Own = Slices<T, kSide, kRows>;
  const auto buffer = [&](int k) { return buffers + (k & 1) * (Own::kTile + 4); };
  const auto make = [&](int k) { publish<kSquare>(own, k, w + k * b.ld + k, buffer(k)); };
  // A round before the first only makes a reflector; doubles leave no registers for that.
  constexpr int kFirst = sizeof(T) == 8 ? 0 : -1;
  if (kFirst == 0) {
    if (own.column == 0) make(0);
    __syncthreads();
  }
#pragma unroll 1
  for (int k = kFirst; k < b.p; ++k) {
    const T* v = buffer(k);
    if (own.column > k && own.column < b.p) {
      if (k >= 0) {
        T* entry = w + k * b.ld + own.column;
        const bool heads = !kSquare && own.keeps(k);
        const T head = heads ? *entry : T(0), shift = own.reflect(v, v[Own::kTile], head);
        if (heads) *entry = head - shift;
      }
      if (own.column == k + 1) make(k + 1);
    }
    T* kept = b.long_out == nullptr || k < 0 ? nullptr : b.reflector(k, row0, rows);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); kept != nullptr && i < rows; i += kBlockThreads)
      kept[i] = v[i];
    __syncthreads();
  }
}

// Rows 0..p-1 of B to W, eight loads before the first store.
template <int kSide, class T>
KDOPS_DEVICE void load_square(const BlockContext<T>& b, bool by_rows, const T* entries) {
  constexpr int kEach = kSide * kSide / kBlockThreads, kLoads = kEach < 8 ? kEach : 8;
  const int thread = static_cast<int>(threadIdx.x), along = thread % kSide;
#pragma unroll 1
  for (int begin = 0; begin < kEach; begin += kLoads) {
    T entry[kLoads];
    const auto each = [&](const auto& visit) {
#pragma unroll
      for (int q = 0; q < kLoads; ++q) {
        const int across = thread / kSide + (begin + q) * (kBlockThreads / kSide);
        visit(entry[q], by_rows ? across : along, by_rows ? along : across,
              across < b.p && along < b.p);
      }
    };
    each([&](T& x, int row, int c, bool inside) {
      x = entries[!inside   ? 0
                  : by_rows ? row * b.p + c
                            : c * b.length + row] *
          b.scale.up * kBoost<T>;
    });
    each([&](T& x, int row, int c, bool inside) {
      if (inside) b.w[row * b.ld + c] = x;
    });
  }
}

// W receives R (row i of R at W + i * ld, zeros left of the diagonal).
template <int kSide, class T>
KDOPS_DEVICE void qr(const BlockContext<T>& b, const SvdArguments<T>& args) {
  KDOPS_DYNAMIC_SHARED(T, pool);  // b.scratch
  const bool by_rows = args.long_rows();
  const T* entries = args.A + blockIdx.x * args.m * args.n;
  load_square<kSide>(b, by_rows, entries);
  __syncthreads();
  {
    SquareSlices<T, kSide> own;
    const int most = own.column < b.p ? b.p : 0;
    own.each_place(b.w + own.column, b.ld, most, [&](T& y, const T* at, bool inside) {
      const T value = *(inside ? at : b.w);
      y = inside ? value : T(0);
    });
    factor<true>(b, own, b.w, pool, 0, b.p);
#pragma unroll
    for (int r = 0; r < kSquareRows<kSide>; ++r)
      own.y[r] = own.row(r) <= own.column ? own.y[r] : T(0);
    own.each_place(b.w + own.column, b.ld, most, [&](T& y, T* at, bool inside) {
      if (inside) *at = y;
    });
  }
  __syncthreads();
  using Own = TileSlices<T, kSide>;
#pragma unroll 1
  for (int64_t row0 = b.p; row0 < b.length; row0 += Own::kTile) {
    const int rows = static_cast<int>(min(int64_t(Own::kTile), b.length - row0));
    Own own;
    const int stride = by_rows ? b.p : 1, most = own.column < b.p ? rows : 0;
    const T* from = entries + (by_rows ? row0 * b.p + own.column : own.column * b.length + row0);
    own.each_place(from, stride, most, [&](T& y, const T* at, bool inside) {
      const T value = *(inside ? at : entries);
      y = inside ? value * b.scale.up * kBoost<T> : T(0);
    });
    factor<false>(b, own, b.w, pool, row0, rows);
  }
}

}  // namespace kdops::svd::gpu
