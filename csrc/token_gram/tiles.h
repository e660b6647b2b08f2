// gram_anchoring_loss by tiles of the Gram matrices: a tile of the student's and one of the
// teacher's become their difference d, the sum of its squares and what d pulls at both tiles'
// tokens, and are then forgotten. Memory is O(N D), whatever is done with negative entries.
#pragma once

#include <limits>

#include "common/blas/gemm.h"
#include "common/simd/long_sum.h"
#include "token_gram/anchoring_simd.h"

namespace kdops::token_gram::KDOPS_ISA {

// Two tiles of tokens: the first ones and how many.
struct TilePair {
  int64_t left, right, rows, columns;
};

// Pair number `item` of a round: the tiles whose numbers add up to the round, modulo their count.
template <class T>
TilePair pair_of(const Anchoring<T>& p, int64_t item) {
  const int64_t low = p.round / 2 + 1, tile = p.x.tile;
  const int64_t left = item < low ? item : p.round + 1 + item - low;
  const int64_t right = item < low ? p.round - left : p.round + p.tiles - left;
  const auto size = [&](int64_t t) { return std::min(tile, p.tokens - t * tile); };
  return {left, right, size(left), size(right)};
}

template <class T>
View<const T> panel_of(const Store<T>& units, int64_t t) {
  return {units.data + t * units.tile * units.width, units.col, units.row};
}

// (rows x columns) products of the unit tokens of two tiles.
template <class T>
void gram_tile(const Store<T>& units, const TilePair& pair, T* out) {
  const View<const T> left = panel_of(units, pair.left), right = panel_of(units, pair.right);
  gemm<T>(pair.rows, pair.columns, units.width, T(1), left.turned(), right, {out, units.tile, 1});
}

struct DifferenceSums {
  double squared, of_entries;  // sums of d^2, and of the squares of both entries
};

// A row of both tiles -> the weights of the pull, in place of the student's. An entry below its
// floor counts as zero; NaN is below nothing.
template <class T>
void difference_row(T* student, const T* teacher, int64_t count, Negatives negatives,
                    DifferenceSums& sums) {
  using P = Pack<T>;
  constexpr T kNone = -std::numeric_limits<T>::infinity();
  const P zero(T(0)), floor_s(negatives == Negatives::drop ? T(0) : kNone);
  const P floor_t(negatives == Negatives::keep ? kNone : T(0));
  P entries(T(0));
  sums.squared += long_sum<T>(count, [&](int64_t j, int lanes) {
    const P from_s = load_some(student + j, lanes), from_t = load_some(teacher + j, lanes);
    const auto out = from_s < floor_s;
    const P s = select(out, zero, from_s), t = select(from_t < floor_t, zero, from_t), d = s - t;
    store_some(select(out, zero, d), student + j, lanes);
    entries = fma(s, s, fma(t, t, entries));
    return d * d;
  });
  sums.of_entries += static_cast<double>(reduce_add(entries));
}

// pull of tile `to` (+)= weights times the units of tile `from`; weights: (from x to) tokens.
template <class T>
void add_pull(const Anchoring<T>& p, int64_t from, int64_t from_count, int64_t to, int64_t to_count,
              View<const T> weights) {
  const View<const T> target = panel_of(p.pull, to);
  gemm<T>(p.x.width, to_count, from_count, T(1), panel_of(p.x, from), weights,
          {p.pull.data + (target.data - p.pull.data), target.row, 1}, true);
}

// student, teacher: (tile x tile) work space.
template <class T>
void anchor_pair(const Anchoring<T>& p, int64_t item, T* student, T* teacher) {
  const TilePair pair = pair_of(p, item);
  const int64_t tile = p.x.tile;
  gram_tile(p.x, pair, student);
  gram_tile(p.y, pair, teacher);
  DifferenceSums sums{0, 0};
  for (int64_t i = 0; i < pair.rows; ++i)
    difference_row(student + i * tile, teacher + i * tile, pair.columns, p.negatives, sums);
  const bool diagonal = pair.left == pair.right;
  const int64_t place = pair.left * p.tiles + pair.right;
  p.sums[place] = diagonal ? sums.squared : 2 * sums.squared;
  p.squares[place] = diagonal ? sums.of_entries : 2 * sums.of_entries;
  if (p.pull.data == nullptr) return;
  add_pull<T>(p, pair.left, pair.rows, pair.right, pair.columns, {student, tile, 1});
  if (!diagonal) add_pull<T>(p, pair.right, pair.columns, pair.left, pair.rows, {student, 1, tile});
}

}  // namespace kdops::token_gram::KDOPS_ISA
