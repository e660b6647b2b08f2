// gram_anchoring_loss through products as large as the tokens are wide, where negative entries stay:
//   |X XT - Y YT|^2 = |XT X|^2 - 2 |YT X|^2 + |YT Y|^2,   (X XT - Y YT) X = X (XT X) - Y (YT X).
// Both differences cancel where student and teacher are alike; the glue then goes by tiles.
#pragma once

#include "common/blas/gemm.h"
#include "common/simd/long_sum.h"
#include "token_gram/anchoring_simd.h"

namespace kdops::token_gram::KDOPS_ISA {

// `count` rows of `depth` numbers.
template <class T>
struct Factor {
  View<const T> rows;
  int64_t count, depth;
};
template <class T>
Factor<T> columns_of(const Store<T>& x, int64_t tokens) {
  return {{x.data, 1, x.row}, x.width, tokens};
}

// Rows first_a.. of A times rows first_b.. of B: a block of A BT, rows `row` apart in out; returns
// the sum of its squares.
template <class T>
double product_block(const Factor<T>& a, int64_t first_a, const Factor<T>& b, int64_t first_b,
                     T* out, int64_t row) {
  const int64_t rows = std::min(kFeatureBlock, a.count - first_a);
  const int64_t columns = std::min(kFeatureBlock, b.count - first_b);
  const auto [left, left_row, left_col] = a.rows;
  const auto [right, right_row, right_col] = b.rows;
  gemm<T>(rows, columns, a.depth, T(1), {left + first_a * left_row, left_row, left_col},
          {right + first_b * right_row, right_col, right_row}, {out, row, 1});
  double sum = 0;
  for (int64_t i = 0; i < rows; ++i) sum += long_squares(out + i * row, columns, T(1));
  return sum;
}

// Where block `item` of the upper half of a symmetric product of `blocks` x `blocks` lies.
struct UpperBlock {
  int64_t row, column;
};
inline UpperBlock upper_block(int64_t item, int64_t blocks) {
  int64_t row = 0;
  for (; item >= blocks - row; ++row) item -= blocks - row;
  return {row * kFeatureBlock, (row + item) * kFeatureBlock};
}

// Block `item` of the upper half of A AT and its mirror image; the sum of squares of both.
template <class T>
double mirrored_block(const Factor<T>& a, int64_t item, T* out, int64_t row) {
  const auto [top, left] = upper_block(item, feature_blocks(a.count));
  T* block = out + top * row + left;
  const double sum = product_block(a, top, a, left, block, row);
  if (top == left) return sum;
  T* mirror = out + left * row + top;
  for (int64_t j = 0; j < std::min(kFeatureBlock, a.count - left); ++j)
    for (int64_t i = 0; i < kFeatureBlock; ++i) mirror[j * row + i] = block[i * row + j];
  return 2 * sum;
}

template <class T>
double mixed_block(const Anchoring<T>& p, int64_t item) {
  const int64_t columns = feature_blocks(p.x.width);
  const int64_t row = item / columns * kFeatureBlock, column = item % columns * kFeatureBlock;
  T* out = p.yx + row * p.products_row + column;
  return product_block(columns_of(p.y, p.tokens), row, columns_of(p.x, p.tokens), column, out,
                       p.products_row);
}

// A block of YT Y, of which nobody needs more than its size. spare: (kFeatureBlock^2).
template <class T>
double teacher_block(const Anchoring<T>& p, int64_t item, T* spare) {
  const auto [row, column] = upper_block(item, feature_blocks(p.y.width));
  const auto y = columns_of(p.y, p.tokens);
  const double sum = product_block(y, row, y, column, spare, kFeatureBlock);
  return row == column ? sum : 2 * sum;
}

// The pull at tokens first..last.
template <class T>
void pull_of_tokens(const Anchoring<T>& p, int64_t first, int64_t last) {
  const int64_t width = p.x.width, row = p.products_row;
  const View<T> target{p.pull.token(first), p.pull.row, 1};
  gemm<T>(last - first, width, width, T(1), {p.x.token(first), p.x.row, 1}, {p.xx, row, 1}, target);
  gemm<T>(last - first, width, p.y.width, T(-1), {p.y.token(first), p.y.row, 1}, {p.yx, row, 1},
          target, true);
}

}  // namespace kdops::token_gram::KDOPS_ISA
