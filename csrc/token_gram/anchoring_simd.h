// CPU entry points of gram_anchoring_loss, one copy per instruction set, and what the glue hands
// them. Plain structs, no torch.
#pragma once

#include <cstdint>
#include <limits>

#include "common/simd/isa.h"

namespace kdops::token_gram {

enum class Negatives { keep, drop, drop_teacher };  // as token_gram.cpp numbers them

// The tokens of an image where they lie: entry k of token i is data[i * row + k * col].
template <class T>
struct Tokens {
  const T* data;
  int64_t width, row, col;
};

// Numbers (tokens x width) of the kernels' own. Either by rows, or in panels of `tile` tokens, each
// (width x tile): a product of two panels reads both of them along the tokens, whole registers at a
// time, and so does what it adds to the gradient.
template <class T>
struct Store {
  T* data;
  int64_t width, tile, row, col;

  T* token(int64_t i) const { return data + i / tile * tile * width + i % tile * row; }
};
template <class T>
Store<T> by_rows(T* data, int64_t width, int64_t row) {
  return {data, width, std::numeric_limits<int64_t>::max(), row, 1};
}
template <class T>
Store<T> in_panels(T* data, int64_t width, int64_t tile) {
  return {data, width, tile, 1, tile};
}

// An image on its way. By tiles: units in panels; by features: units and products by rows.
template <class T>
struct Anchoring {
  Tokens<T> student, teacher;
  int64_t tokens;
  Negatives negatives;
  Store<T> x, y;  // unit tokens
  T* inverse;     // (tokens) 1 / |student's token|, or 0
  Store<T> pull;  // sum_j d_ij x_j, d = G_S - G_T where it counts; data null: not wanted
  double* sums;  // of squares: of d per pair of tiles (tiles x tiles), or of each block of products
  // by tiles
  int64_t tiles, round;
  double* squares;  // (tiles x tiles): of the entries that d is the difference of
  // by features
  T *xx, *yx;  // XT X (D_S x D_S) and YT X (D_T x D_S), rows products_row apart
  int64_t products_row;
  // the cotangent of student, rows of its width: factor * (pull - u <u, pull>) / |x|
  T* gradient;
  T factor;
  double *pulled, *across;  // (tokens) |pull|^2, and of what is left of it across the token
};

// Tokens of a tile, a multiple of a register; all tiles but the last are full.
KDOPS_PER_ISA(template <class T> int64_t anchor_tile(int64_t tokens);)

// Unit tokens of both sides, groups begin..end.
inline constexpr int64_t kTokenGroup = 8;
inline int64_t token_groups(int64_t tokens) { return (tokens + kTokenGroup - 1) / kTokenGroup; }
KDOPS_ENTRY(anchor_units, Anchoring)

// By tiles. Pairs begin..end of the round: no two pairs of a round share a tile, and the rounds
// together meet every pair once.
inline int64_t pairs_in_round(int64_t tiles, int64_t round) {
  return round / 2 + 1 + (round + tiles) / 2 - round;
}
KDOPS_ENTRY(anchor_pairs, Anchoring)

// By features. Blocks begin..end, of kFeatureBlock x kFeatureBlock entries each, of XT X (the upper
// half and its mirror image), YT X, and YT Y (the upper half, which is not kept), in this order.
inline constexpr int64_t kFeatureBlock = 96;
inline int64_t feature_blocks(int64_t width) { return (width + kFeatureBlock - 1) / kFeatureBlock; }
struct ProductBlocks {
  int64_t student, mixed, teacher;
};
inline ProductBlocks product_blocks(int64_t student_width, int64_t teacher_width) {
  const int64_t s = feature_blocks(student_width), t = feature_blocks(teacher_width);
  return {s * (s + 1) / 2, s * t, t * (t + 1) / 2};
}
KDOPS_ENTRY(anchor_products, Anchoring)

// By features. Blocks begin..end of kTokenBlock tokens: their pull, X (XT X) - Y (YT X).
inline constexpr int64_t kTokenBlock = 96;
KDOPS_ENTRY(anchor_pull, Anchoring)

// Groups begin..end of tokens of the cotangent of student.
KDOPS_ENTRY(anchor_back, Anchoring)

}  // namespace kdops::token_gram
