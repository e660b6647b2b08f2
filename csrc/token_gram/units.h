// Tokens as unit vectors, and the way back: what both routes of gram_anchoring_loss share. A few
// tokens at a time, turned around as a block where they lie in panels.
#pragma once

#include <algorithm>

#include "common/simd/long_sum.h"
#include "common/simd/transpose.h"
#include "common/simd/unit_vector.h"
#include "token_gram/anchoring_simd.h"

namespace kdops::token_gram::KDOPS_ISA {

// `count` tokens, whose entries lie `col` and which lie `row` apart, as contiguous rows.
template <class T>
void read_tokens(const T* from, int64_t row, int64_t col, int64_t count, int64_t width, T* rows) {
  if (row == 1 && col != 1) return transpose_block(from, col, width, count, rows, width);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t k = 0; k < width; ++k) rows[i * width + k] = from[i * row + k * col];
}

template <class T>
void write_tokens(const T* rows, int64_t first, int64_t count, const Store<T>& out) {
  T* target = out.token(first);
  if (out.col != 1) return transpose_block(rows, out.width, count, out.width, target, out.col);
  for (int64_t i = 0; i < count; ++i)
    std::copy_n(rows + i * out.width, out.width, target + i * out.row);
}

// Unit tokens first.. of x; inverse, where it is not null, of each. rows: (count x width).
template <class T>
void make_units(const Tokens<T>& x, int64_t first, int64_t count, const Store<T>& out, T* inverse,
                T* rows) {
  read_tokens(x.data + first * x.row, x.row, x.col, count, x.width, rows);
  for (int64_t i = 0; i < count; ++i) {
    const T factor = make_unit(rows + i * x.width, x.width);
    if (inverse != nullptr) inverse[first + i] = factor;
  }
  write_tokens(rows, first, count, out);
}

// The cotangent of token i from the pull on its unit vector.
template <class T>
void unit_back(const Anchoring<T>& p, int64_t i, const T* pull, const T* unit) {
  const int64_t width = p.student.width;
  const Pack<T> along(static_cast<T>(long_inner(unit, pull, width)));
  const Pack<T> scale(p.inverse[i]), factor(p.factor);
  T* target = p.gradient + i * width;
  p.pulled[i] = long_squares(pull, width, T(1));
  p.across[i] = long_sum<T>(width, [&](int64_t k, int lanes) {
    const Pack<T> across = load_some(pull + k, lanes) - along * load_some(unit + k, lanes);
    store_some(scale * (factor * across), target + k, lanes);
    return across * across;
  });
}

// pulls, units: (count x width).
template <class T>
void units_back(const Anchoring<T>& p, int64_t first, int64_t count, T* pulls, T* units) {
  const int64_t width = p.student.width;
  read_tokens<T>(p.pull.token(first), p.pull.row, p.pull.col, count, width, pulls);
  read_tokens<T>(p.x.token(first), p.x.row, p.x.col, count, width, units);
  for (int64_t i = 0; i < count; ++i) unit_back(p, first + i, pulls + i * width, units + i * width);
}

}  // namespace kdops::token_gram::KDOPS_ISA
