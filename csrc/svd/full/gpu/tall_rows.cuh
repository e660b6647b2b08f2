// What svd_gram_kernel does along the long side: B^T B, and B times a small matrix. Both read rows
// of B (length x p, p <= kSide) through shared memory, 16 KiB at a time.
#pragma once

#include "svd/full/gpu/device.cuh"

namespace kdops::svd::gpu {

inline constexpr int kGramThreads = 128, kGramWarps = kGramThreads / kWarp;

template <class T, int kSide>
struct TallShape {
  static constexpr int kWide = 16 / sizeof(T);                    // numbers of one access
  static constexpr int kRows = (16 << 10) / (kSide * sizeof(T));  // staged at a time
  static constexpr int kStride = kSide + 4;                       // rows spread over the banks
  static constexpr int kChunk = kRows * kStride;

  // Lanes share the 8 x 8 tiles on and below the diagonal: each of them has kSplits, which take
  // every kStep-th row. Two lanes of a warp are left over.
  static constexpr int kTiles = kSide / 8 * (kSide / 8 + 1) / 2, kSplits = kWarp / kTiles;
  static constexpr int kStep = kGramWarps * kSplits, kSums = kStep * kTiles;
  static constexpr int kGramRows = kRows / kStep * kStep;
  static constexpr int kPartial = 64 * kSums;

  // Of the product a thread has four columns and kMine rows, kGroups apart.
  static constexpr int kGroups = kGramThreads / (kSide / 4), kMine = kRows / kGroups;
};

// One access.
template <class T, int N>
KDOPS_DEVICE void load_wide(const T* from, T* to) {
  const auto part = *reinterpret_cast<const Vec<T, N>*>(from);
#pragma unroll
  for (int q = 0; q < N; ++q) to[q] = part.at[q];
}
template <class T, int N>
KDOPS_DEVICE void store_wide(T* to, const T* from) {
  Vec<T, N> part;
#pragma unroll
  for (int q = 0; q < N; ++q) part.at[q] = from[q];
  *reinterpret_cast<Vec<T, N>*>(to) = part;
}

// One matrix of a batch as the tall B.
template <class T, int kSide>
struct TallRows : TallShape<T, kSide> {
  using Shape = TallShape<T, kSide>;
  static constexpr int kWide = Shape::kWide, kAcross = kSide / kWide;

  const T* B;
  int64_t length;
  int p;
  bool by_rows, wide_loads;

  KDOPS_DEVICE explicit TallRows(const SvdArguments<T>& args)
      : B(args.A + blockIdx.x * args.m * args.n),
        length(args.length()),
        p(args.p()),
        by_rows(args.long_rows()),
        wide_loads(by_rows && p % kWide == 0 && reinterpret_cast<uintptr_t>(B) % 16 == 0) {}

  // At most `most` rows from row0 on to chunk[row * kStride + column], zeros up to kRows and kSide.
  // Between two barriers.
  KDOPS_DEVICE void stage(T* chunk, int64_t row0, int most) const {
    const int rows = static_cast<int>(min(int64_t(most), length - row0));
    __syncthreads();
    const T* first = B + row0 * (by_rows ? p : 1);
    if (wide_loads)
      stage_rows(chunk, first, rows);
    else
      stage_numbers(chunk, first, rows);
    __syncthreads();
  }

 private:
  // A thread's pieces lie in one column of pieces, kDown rows apart: one address that moves. All loads
  // before the first store. Outside of B its first number, dropped: a condition would make the loads
  // wait for one another.
  KDOPS_DEVICE void stage_rows(T* chunk, const T* first, int rows) const {
    constexpr int kDown = kGramThreads / kAcross, kPieces = Shape::kRows / kDown;
    const int row = static_cast<int>(threadIdx.x) / kAcross;
    const int column = static_cast<int>(threadIdx.x) % kAcross * kWide;
    const int left = column < p ? rows - row : 0, step = kDown * p;
    const T* from = first + row * p + column;
    T piece[kPieces][kWide];
#pragma unroll
    for (int q = 0; q < kPieces; ++q) {
      load_wide<T, kWide>(q * kDown < left ? from : first, piece[q]);
      from += step;
    }
    T* to = chunk + row * Shape::kStride + column;
#pragma unroll
    for (int q = 0; q < kPieces; ++q) {
#pragma unroll
      for (int c = 0; c < kWide; ++c) piece[q][c] = q * kDown < left ? piece[q][c] : T(0);
      store_wide<T, kWide>(to + q * (kDown * Shape::kStride), piece[q]);
    }
  }
  // Number by number, in any order of memory: neighbouring threads read neighbouring numbers.
  KDOPS_DEVICE void stage_numbers(T* chunk, const T* first, int rows) const {
    constexpr int kAtOnce = 2;
    const int64_t down = by_rows ? p : 1, across = by_rows ? 1 : length;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < Shape::kRows * kAcross;
         i += kAtOnce * kGramThreads) {
      T piece[kAtOnce][kWide];
      const auto each = [&](const auto& visit) {
#pragma unroll
        for (int q = 0; q < kAtOnce; ++q) {
          const int at = i + q * kGramThreads;
          const int row = by_rows ? at / kAcross : at % Shape::kRows;
          const int column = (by_rows ? at % kAcross : at / Shape::kRows) * kWide;
          visit(piece[q], row, column, row < rows ? p - column : 0);
        }
      };
      each([&](T(&x)[kWide], int row, int column, int inside) {
#pragma unroll
        for (int c = 0; c < kWide; ++c)
          x[c] = first[c < inside ? row * down + (column + c) * across : 0];
      });
      each([&](T(&x)[kWide], int row, int column, int inside) {
#pragma unroll
        for (int c = 0; c < kWide; ++c) x[c] = c < inside ? x[c] : T(0);
        store_wide<T, kWide>(chunk + row * Shape::kStride + column, x);
      });
    }
  }
};

// A lane's part of the Gram matrix.
template <class T, int kSide>
struct GramPart {
  using Shape = TallShape<T, kSide>;
  static constexpr int kWide = Shape::kWide;
  int row, column, split, slot;
  T sum[64];

  KDOPS_DEVICE GramPart() : row(0), sum{} {
    const int tile = lane_id() % Shape::kTiles;
    while ((row + 1) * (row + 2) / 2 <= tile) ++row;
    column = tile - row * (row + 1) / 2;
    split = lane_id() / Shape::kTiles;
    slot = (warp_id() * Shape::kSplits + split) * Shape::kTiles + tile;
  }
  KDOPS_DEVICE void add(const T* chunk) {
    const T* at = chunk + (warp_id() * Shape::kSplits + split) * Shape::kStride;
#pragma unroll 1
    for (int i = 0; i < Shape::kGramRows; i += Shape::kStep) {
      T a[8], b[8];
#pragma unroll
      for (int q = 0; q < 8; q += kWide) {
        load_wide<T, kWide>(at + row * 8 + q, a + q);
        load_wide<T, kWide>(at + column * 8 + q, b + q);
      }
#pragma unroll
      for (int q = 0; q < 64; ++q) sum[q] = fma(a[q / 8], b[q % 8], sum[q]);
      at += Shape::kStep * Shape::kStride;
    }
  }
  // Sum q of slot s is partial[place(q / kWide, s) + q % kWide]: neighbouring lanes, neighbouring
  // places. kFirst: there is nothing yet.
  static KDOPS_DEVICE int place(int part, int s) { return (part * Shape::kSums + s) * kWide; }
  template <bool kFirst>
  KDOPS_DEVICE void flush(T* partial) {
    if (split >= Shape::kSplits) return;
#pragma unroll
    for (int q = 0; q < 64; q += kWide) {
      T* at = partial + place(q / kWide, slot);
      if constexpr (!kFirst) {
        T before[kWide];
        load_wide<T, kWide>(at, before);
#pragma unroll
        for (int c = 0; c < kWide; ++c) sum[q + c] += before[c];
      }
      store_wide<T, kWide>(at, sum + q);
#pragma unroll
      for (int c = 0; c < kWide; ++c) sum[q + c] = T(0);
    }
  }
};

// B^T B to `gram` (kSide x kSide, rows kSide + 1 apart), which may be `chunk`; unscaled. Sums along a
// long side stay exact enough: of some hundred numbers each, and those of their sums. Ends with a
// barrier.
template <class T, int kSide>
KDOPS_DEVICE void gram_of_rows(const TallRows<T, kSide>& rows, T* chunk, T* partial, T* gram) {
  using Tile = GramPart<T, kSide>;
  using Shape = TallShape<T, kSide>;
  constexpr int kWide = Shape::kWide;
  constexpr int64_t kLongBlock = 8 * Shape::kGramRows;
  Tile tile;
  tile.template flush<true>(partial);
#pragma unroll 1
  for (int64_t block = 0; block < rows.length; block += kLongBlock) {
    const int64_t end = min(block + kLongBlock, rows.length);
#pragma unroll 1
    for (int64_t row0 = block; row0 < end; row0 += Shape::kGramRows) {
      rows.stage(chunk, row0, Shape::kGramRows);
      tile.add(chunk);
    }
    tile.template flush<false>(partial);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < Shape::kTiles * 64; i += kGramThreads) {
    const int number = i / kWide, t = number % Shape::kTiles;  // along the places
    const int q = number / Shape::kTiles * kWide + i % kWide;
    T sum = T(0);
    for (int s = t; s < Shape::kSums; s += Shape::kTiles)
      sum += partial[Tile::place(q / kWide, s) + q % kWide];
    int row = 0;
    while ((row + 1) * (row + 2) / 2 <= t) ++row;
    const int at = row * 8 + q / 8, across = (t - row * (row + 1) / 2) * 8 + q % 8;
    if (at < across) continue;  // a tile on the diagonal holds both
    gram[at * (kSide + 1) + across] = gram[across * (kSide + 1) + at] = sum;
  }
  __syncthreads();
}

// B times `right` (kSide x kSide, zero from p on) to `out`: length x p, or by columns.
template <class T, int kSide>
KDOPS_DEVICE void product_of_rows(const TallRows<T, kSide>& rows, const T* right, T* chunk, T* out,
                                  bool by_columns) {
  using Shape = TallShape<T, kSide>;
  constexpr int kWide = Shape::kWide, kMine = Shape::kMine;
  const int thread = static_cast<int>(threadIdx.x), p = rows.p;
  const int column = thread % (kSide / 4) * 4, group = thread / (kSide / 4);
  const int64_t down = by_columns ? 1 : p, across = by_columns ? rows.length : 1;
  const bool wide_stores = !by_columns && p % 4 == 0;
#pragma unroll 1
  for (int64_t row0 = 0; row0 < rows.length; row0 += Shape::kRows) {
    rows.stage(chunk, row0, Shape::kRows);
    T sum[kMine][4] = {};
#pragma unroll 1
    for (int k = 0; k < p; k += kWide) {
      T factor[kWide][4];
#pragma unroll
      for (int i = 0; i < kWide * 4; i += kWide)
        load_wide<T, kWide>(right + (k + i / 4) * kSide + column + i % 4, &factor[i / 4][i % 4]);
#pragma unroll
      for (int r = 0; r < kMine; ++r) {
        T x[kWide];
        load_wide<T, kWide>(chunk + (group + r * Shape::kGroups) * Shape::kStride + k, x);
#pragma unroll
        for (int i = 0; i < kWide * 4; ++i)
          sum[r][i % 4] = fma(x[i / 4], factor[i / 4][i % 4], sum[r][i % 4]);
      }
    }
#pragma unroll
    for (int r = 0; r < kMine; ++r) {
      const int64_t row = row0 + group + r * Shape::kGroups;
      if (row >= rows.length || column >= p) continue;
      T* to = out + row * down + column * across;
      if (wide_stores) {
#pragma unroll
        for (int c = 0; c < 4; c += kWide) store_wide<T, kWide>(to + c, sum[r] + c);
      } else {
#pragma unroll
        for (int c = 0; c < 4; ++c)
          if (column + c < p) to[c * across] = sum[r][c];
      }
    }
  }
}

}  // namespace kdops::svd::gpu
