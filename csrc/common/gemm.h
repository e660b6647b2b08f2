// Small strided matrix products for one thread: C = alpha * A B, any strides, any input dtype.
//
// Batches of products whose operands fit in L2 do not pay for a full BLAS: the operands are packed
// once per block into panels (which also handles transposes, channels_last and half precision) and
// multiplied by a register tile of kTileRows x (kTilePacks registers). Callers: gram, relation,
// rbf. Matrices are views: element (i, j) is data[i * row + j * col].
#pragma once

#include <algorithm>

#include "half.h"
#include "pack.h"
#include "scratch.h"

namespace kdops::KDOPS_ISA {

template <class T>
struct View {
  T* data;
  int64_t row, col;
  T& at(int64_t i, int64_t j) const { return data[i * row + j * col]; }
};

#if defined(__AVX512F__)
inline constexpr int kTileRows = 8, kTilePacks = 3;  // 24 accumulators of 32 registers
#elif defined(__AVX2__)
inline constexpr int kTileRows = 6, kTilePacks = 2;  // 12 of 16
#else
inline constexpr int kTileRows = 4, kTilePacks = 2;
#endif
inline constexpr int64_t kBlockDepth = 256;

template <class T>
inline constexpr int kTileCols = kTilePacks * Pack<T>::kLanes;

// rows x depth of A -> panels of kTileRows: out[panel][k][kTileRows], zero padded.
template <class T, class In>
void pack_rows(View<const In> a, int64_t rows, int64_t depth, T* out) {
  for (int64_t i0 = 0; i0 < rows; i0 += kTileRows) {
    const int count = static_cast<int>(std::min<int64_t>(kTileRows, rows - i0));
    if (a.row == 1 && count == kTileRows) {  // a transposed view: whole panel rows are contiguous
      for (int64_t k = 0; k < depth; ++k)
        for (int r = 0; r < kTileRows; ++r)
          out[k * kTileRows + r] = widen(a.data[i0 + r + k * a.col]);
      out += kTileRows * depth;
      continue;
    }
    for (int r = 0; r < kTileRows; ++r) {
      const In* source = a.data + (i0 + r) * a.row;
      if (r < count)
        for (int64_t k = 0; k < depth; ++k) out[k * kTileRows + r] = widen(source[k * a.col]);
      else
        for (int64_t k = 0; k < depth; ++k) out[k * kTileRows + r] = T(0);
    }
    out += kTileRows * depth;
  }
}

// depth x cols of B -> panels of kTileCols<T>: out[panel][k][kTileCols], zero padded.
template <class T, class In>
void pack_cols(View<const In> b, int64_t depth, int64_t cols, T* out) {
  constexpr int kCols = kTileCols<T>;
  for (int64_t j0 = 0; j0 < cols; j0 += kCols) {
    const int count = static_cast<int>(std::min<int64_t>(kCols, cols - j0));
    if (b.row == 1 && b.col != 1) {  // read along the contiguous axis, write strided
      for (int c = 0; c < count; ++c) {
        const In* source = b.data + (j0 + c) * b.col;
        for (int64_t k = 0; k < depth; ++k) out[k * kCols + c] = widen(source[k]);
      }
    } else {
      for (int64_t k = 0; k < depth; ++k) {
        const In* source = b.data + k * b.row + j0 * b.col;
        if (b.col == 1)
          for (int c = 0; c < count; ++c) out[k * kCols + c] = widen(source[c]);
        else
          for (int c = 0; c < count; ++c) out[k * kCols + c] = widen(source[c * b.col]);
      }
    }
    for (int64_t k = 0; k < depth; ++k)
      for (int c = count; c < kCols; ++c) out[k * kCols + c] = T(0);
    out += kCols * depth;
  }
}

// out (kTileRows x kTileCols, `stride` apart) = alpha * sum over k of a[k][:] outer b[k][:],
// plus what is there when accumulate. a is a packed panel; rows of b lie `b_stride` apart.
template <class T>
inline void multiply_tile(const T* a, const T* b, int64_t b_stride, int64_t depth, T alpha,
                          bool accumulate, T* out, int64_t stride) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  P acc[kTileRows][kTilePacks];
  for (auto& row : acc)
    for (auto& value : row) value = P(T(0));
  for (int64_t k = 0; k < depth; ++k) {
    P col[kTilePacks];
#pragma GCC unroll 4
    for (int c = 0; c < kTilePacks; ++c) col[c] = P::load(b + c * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      const P value(a[r]);
#pragma GCC unroll 4
      for (int c = 0; c < kTilePacks; ++c) acc[r][c] = fma(value, col[c], acc[r][c]);
    }
    a += kTileRows;
    b += b_stride;
  }
  const P scale(alpha);
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < kTilePacks; ++c) {
      T* target = out + r * stride + c * kLanes;
      P value = scale * acc[r][c];
      if (accumulate) value += P::load(target);
      value.store(target);
    }
}

// The valid part of a tile that does not fit into C as it is.
template <class T>
inline void copy_tile(const T* tile, bool accumulate, View<T> c, int rows, int cols) {
  for (int r = 0; r < rows; ++r) {
    const T* source = tile + r * kTileCols<T>;
    T* target = c.data + r * c.row;
    if (accumulate)
      for (int j = 0; j < cols; ++j) target[j * c.col] += source[j];
    else
      for (int j = 0; j < cols; ++j) target[j * c.col] = source[j];
  }
}

enum class Part { all, upper };  // upper: tiles wholly below the diagonal are left out

// C (rows x cols) = alpha * A (rows x depth) B (depth x cols), or += with accumulate.
template <class T, class TA, class TB>
void gemm(int64_t rows, int64_t cols, int64_t depth, T alpha, View<const TA> a, View<const TB> b,
          View<T> c, bool accumulate = false, Part part = Part::all) {
  constexpr int kCols = kTileCols<T>;
  const int64_t row_panels = (rows + kTileRows - 1) / kTileRows;
  const int64_t col_panels = (cols + kCols - 1) / kCols;
  const int64_t block = std::min(depth, kBlockDepth);
  // Full panels of a B with contiguous rows are read where they lie.
  const int64_t direct_panels = std::is_same_v<TB, T> && b.col == 1 ? cols / kCols : 0;
  Scratch<T> packed_a(row_panels * kTileRows * block);
  Scratch<T> packed_b((col_panels - direct_panels) * kCols * block);
  alignas(64) T tile[kTileRows * kCols];
  for (int64_t k0 = 0; k0 == 0 || k0 < depth; k0 += kBlockDepth) {
    const int64_t now = std::min(kBlockDepth, depth - k0);
    const bool add = accumulate || k0 > 0;
    const View<const TB> b_block{b.data + k0 * b.row, b.row, b.col};
    const int64_t packed_from = direct_panels * kCols;
    const View<const TA> a_block{a.data + k0 * a.col, a.row, a.col};
    pack_rows<T, TA>(a_block, rows, now, packed_a.get());
    const View<const TB> b_rest{b_block.data + packed_from * b.col, b.row, b.col};
    pack_cols<T, TB>(b_rest, now, cols - packed_from, packed_b.get());
    for (int64_t jp = 0; jp < col_panels; ++jp) {
      const int64_t j = jp * kCols;
      const bool direct = jp < direct_panels;
      const T* panel = packed_b.get() + (j - packed_from) * now;
      if constexpr (std::is_same_v<TB, T>)
        if (direct) panel = b_block.data + j;
      for (int64_t i = 0; i < rows; i += kTileRows) {
        if (part == Part::upper && j + kCols <= i) continue;
        const int valid_rows = static_cast<int>(std::min<int64_t>(kTileRows, rows - i));
        const int valid_cols = static_cast<int>(std::min<int64_t>(kCols, cols - j));
        const bool whole = c.col == 1 && valid_rows == kTileRows && valid_cols == kCols;
        multiply_tile(packed_a.get() + i * now, panel, direct ? b.row : kCols, now, alpha,
                      whole && add, whole ? &c.at(i, j) : tile, whole ? c.row : kCols);
        if (!whole) copy_tile<T>(tile, add, {&c.at(i, j), c.row, c.col}, valid_rows, valid_cols);
      }
    }
  }
}

}  // namespace kdops::KDOPS_ISA
