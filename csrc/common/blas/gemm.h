// Small strided matrix products for one thread: C = alpha * A B, any strides, any input dtype.
//
// For batches of products whose operands fit in L2, where a full BLAS spends its time on packing.
// A register tile of 8 x 3 packs (AVX-512) reads A by broadcasts where it lies and B by whole
// packs: where it lies when its rows are contiguous, else from a packed strip. Matrices are views:
// element (i, j) is data[i * row + j * col]. Callers: gram, relation, rbf, and in svd the gradients
// and whatever has a small side above 128.
#pragma once

#include <algorithm>

#include "common/simd/pack.h"
#include "common/simd/scratch.h"

namespace kdops::KDOPS_ISA {

template <class T>
struct View {
  T* data;
  int64_t row, col;

  T& at(int64_t i, int64_t j) const { return data[i * row + j * col]; }
  View turned() const { return {data, col, row}; }
};

// Whether the inner loop fetches what the next strip will read: with registers half as wide it asks
// for each line twice, and takes the load ports from the multiply-adds (77 instead of 91 GFLOP/s).
inline constexpr bool kFetchAhead = kPackBytes == 64;

#if defined(__AVX512F__)
inline constexpr int kTileRows = 8, kTilePacks = 3;  // 24 accumulators of 32 registers
#elif defined(__AVX2__)
inline constexpr int kTileRows = 4, kTilePacks = 3;  // 12 of 16
#else
inline constexpr int kTileRows = 4, kTilePacks = 2;
#endif
template <class T>
inline constexpr int kTileCols = kTilePacks * Pack<T>::kLanes;
// B is worked through in strips of so many bytes (they stay in L1) and at most so deep.
#if defined(__AVX512F__)
inline constexpr int64_t kStripBytes = 32768, kBlockDepth = 256;  // such processors have 48 KiB
#else
inline constexpr int64_t kStripBytes = 24576, kBlockDepth = 128;
#endif

// One product of a register tile with what it needs to know of its surroundings.
template <class T>
struct TileJob {
  View<const T> a;  // kRows x depth
  const T* b;       // depth x kPacks packs, rows b_row apart
  int64_t b_row, depth;
  const T* ahead;  // what the next strip will read from memory, fetched meanwhile
  int64_t ahead_row = 0;
  T alpha;
  bool accumulate;
  T* c = nullptr;  // rows c_row apart, contiguous columns
  int64_t c_row;
  int last = 0;  // valid lanes of the last pack, 1..kLanes
};

template <class T, int kRows, int kPacks, bool kPartial>
inline void multiply_tile(const TileJob<T>& job) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  P acc[kRows][kPacks];
  for (auto& row : acc)
    for (auto& value : row) value = P(T(0));
  const T* a = job.a.data;
  const T* b = job.b;
  const T* ahead = job.ahead;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)  // the lines that will be written travel while we multiply
#pragma GCC unroll 4
    for (int c = 0; c < kPacks; ++c) __builtin_prefetch(job.c + r * job.c_row + c * kLanes, 1, 3);
  for (int64_t k = 0; k < job.depth; ++k) {
    P col[kPacks];
    if constexpr (kFetchAhead)
#pragma GCC unroll 4
      for (int c = 0; c < kPacks; ++c) __builtin_prefetch(ahead + c * kLanes, 0, 2);
#pragma GCC unroll 4
    for (int c = 0; c < kPacks; ++c)
      col[c] = kPartial && c == kPacks - 1 ? P::load_partial(b + c * kLanes, job.last)
                                           : P::load(b + c * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const P value(a[r * job.a.row]);
#pragma GCC unroll 4
      for (int c = 0; c < kPacks; ++c) acc[r][c] = fma(value, col[c], acc[r][c]);
    }
    a += job.a.col;
    b += job.b_row;
    ahead += job.ahead_row;
  }
  const P scale(job.alpha);
  const bool accumulate = job.accumulate;  // locals: the stores below might alias the job
  T* const out = job.c;
  const int64_t out_row = job.c_row;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < kPacks; ++c) {
      T* target = out + r * out_row + c * kLanes;
      P value = scale * acc[r][c];
      if (kPartial && c == kPacks - 1) {
        if (accumulate) value += P::load_partial(target, job.last);
        value.store_partial(target, job.last);
      } else {
        if (accumulate) value += P::load(target);
        value.store(target);
      }
    }
}

template <class T, int kRows, int kPacks>
inline void multiply_tile_of(const TileJob<T>& job) {
  if (job.last == Pack<T>::kLanes)
    multiply_tile<T, kRows, kPacks, false>(job);
  else
    multiply_tile<T, kRows, kPacks, true>(job);
}

// depth x cols of B, rows contiguous and `stride` apart. Tiles read no further than cols.
template <class T>
void pack_strip(View<const T> b, int64_t depth, int64_t cols, T* out, int64_t stride) {
  if (b.row == 1) {  // read along the contiguous axis
    for (int64_t c = 0; c < cols; ++c)
      for (int64_t k = 0; k < depth; ++k) out[k * stride + c] = b.data[c * b.col + k];
  } else {
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t c = 0; c < cols; ++c) out[k * stride + c] = b.data[k * b.row + c * b.col];
  }
}

// Whether `count` rows so many bytes apart can lie in L1 together. Its sets repeat every 4 KiB:
// rows a power of two apart share few of them, eight lines each (or more, depending on the
// processor).
inline bool spread_over_cache(int64_t row_bytes, int64_t count) {
  return count * (row_bytes & -row_bytes) <= 8 * 4096;
}

enum class Part { all, upper };  // upper: tiles wholly below the diagonal are left out

// kRows rows of C times all columns of a strip, tile after tile.
template <class T, int kRows>
inline void multiply_rows(TileJob<T> job, int64_t width) {
  constexpr int kLanes = Pack<T>::kLanes;
  for (int64_t j = 0; j < width; j += kTileCols<T>) {
    const int64_t here = std::min<int64_t>(kTileCols<T>, width - j);
    const int packs = static_cast<int>((here + kLanes - 1) / kLanes);
    job.last = static_cast<int>(here - (packs - 1) * kLanes);
    if (packs == kTilePacks)
      multiply_tile_of<T, kRows, kTilePacks>(job);
    else if (packs == 2)
      multiply_tile_of<T, kRows, 2>(job);
    else
      multiply_tile_of<T, kRows, 1>(job);
    job.b += kTileCols<T>;
    job.c += kTileCols<T>;
    if (job.ahead_row) job.ahead += kTileCols<T>;
  }
}

// Rows 0 .. rows of C for one column strip of one depth block.
template <class T>
void multiply_strip(View<const T> a, int64_t rows, TileJob<T> job, int64_t width, T* c) {
  for (int64_t i = 0; i < rows;) {
    job.a = {a.data + i * a.row, a.row, a.col};
    job.c = c + i * job.c_row;
    if (rows - i >= kTileRows) {
      multiply_rows<T, kTileRows>(job, width);
      i += kTileRows;
    } else if (rows - i >= kTileRows / 2) {
      multiply_rows<T, kTileRows / 2>(job, width);
      i += kTileRows / 2;
    } else {
      multiply_rows<T, 1>(job, width);
      i += 1;
    }
  }
}

// C (rows x cols) = alpha * A (rows x depth) B (depth x cols), or += with accumulate. The columns
// of C are contiguous (c.col == 1).
template <class T>
void gemm(int64_t rows, int64_t cols, int64_t depth, T alpha, View<const T> a, View<const T> b,
          View<T> c, bool accumulate = false, Part part = Part::all) {
  constexpr int kCols = kTileCols<T>;
  const int64_t block = std::min(depth, kBlockDepth);
  const bool direct = b.col == 1 && spread_over_cache(b.row * sizeof(T), block);
  const int64_t fitting =
      kStripBytes / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(block, 1) / kCols * kCols;
  const int64_t needed = (cols + kCols - 1) / kCols * kCols;
  const int64_t strip_cols = std::clamp<int64_t>(fitting, kCols, std::max<int64_t>(needed, kCols));
  Scratch<T> strip(direct ? 0 : strip_cols * block);
  for (int64_t k0 = 0; k0 == 0 || k0 < depth; k0 += kBlockDepth) {
    const int64_t now = std::min(kBlockDepth, depth - k0);
    const View<const T> left{a.data + k0 * a.col, a.row, a.col};
    for (int64_t j = 0; j < cols; j += strip_cols) {
      const int64_t width = std::min<int64_t>(strip_cols, cols - j);
      const View<const T> right{b.data + k0 * b.row + j * b.col, b.row, b.col};
      TileJob<T> job{.a = left,
                     .b = strip.get(),
                     .b_row = strip_cols,
                     .depth = now,
                     .ahead = strip.get(),
                     .alpha = alpha,
                     .accumulate = accumulate || k0 > 0,
                     .c_row = c.row};
      if (direct) job.b = right.data, job.b_row = b.row, job.ahead = right.data;
      const bool more = j + strip_cols < cols;
      if (b.col == 1 && more) job.ahead = right.data + strip_cols, job.ahead_row = b.row;
      if (!direct) pack_strip<T>(right, now, width, strip.get(), strip_cols);
      const int64_t last_row = part == Part::upper ? std::min(rows, j + width) : rows;
      multiply_strip<T>(left, last_row, job, width, c.data + j * c.col);
    }
  }
}

// What Part::upper leaves out of a symmetric product, from the other side of the diagonal.
template <class T>
void mirror_upper(T* out, int64_t n) {
  for (int64_t i = 1; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) out[i * n + j] = out[j * n + i];
}

}  // namespace kdops::KDOPS_ISA
