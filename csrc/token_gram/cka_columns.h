// The rows that cka_loss compares, a block of columns at a time: scaled, and centred. Caller:
// cka_simd.cpp.
#pragma once

#include <algorithm>

#include "common/simd/long_sum.h"
#include "token_gram/cka_simd.h"

namespace kdops::token_gram::KDOPS_ISA {

// Columns first.. of the rows that count, scaled, as rows of their own.
template <class T>
void copy_columns(const Cka<T>& p, const CkaSide<T>& side, int64_t first, int64_t count) {
  const Tokens<T>& x = side.given;
  for (int64_t i = 0; i < p.n; ++i) {
    const T* from = x.data + p.present[i] * x.row + first * x.col;
    T* to = side.rows + i * x.width + first;
    for (int64_t k = 0; k < count; ++k) to[k] = side.scale * from[k * x.col];
  }
}

// A register for each pack of a block of columns, and row after row added to it by
// body(register, k, lanes, entries).
template <class T>
struct ColumnPacks {
  Pack<T> of[kColumns / Pack<T>::kLanes];

  template <class Body>
  ColumnPacks(const T* x, int64_t row, int64_t n, int64_t count, const Body& body) {
    for (auto& value : of) value = Pack<T>(T(0));
    for (int64_t i = 0; i < n; ++i)
      for_packs<T>(count, [&](int64_t k, int lanes) {
        Pack<T>& value = of[k / Pack<T>::kLanes];
        value = body(value, k, lanes, load_some(x + i * row + k, lanes));
      });
  }
};

// entries = body(k, lanes, entries) for all packs of all rows.
template <class T, class Body>
void change_columns(T* x, int64_t row, int64_t n, int64_t count, const Body& body) {
  for (int64_t i = 0; i < n; ++i)
    for_packs<T>(count, [&](int64_t k, int lanes) {
      T* entry = x + i * row + k;
      store_some(body(k / Pack<T>::kLanes, load_some(entry, lanes)), entry, lanes);
    });
}

template <class T>
void subtract_means(T* x, int64_t row, int64_t n, int64_t count) {
  const ColumnPacks<T> sums(x, row, n, count,
                            [](Pack<T> sum, int64_t, int, Pack<T> entry) { return sum + entry; });
  const Pack<T> share(T(1) / static_cast<T>(n));
  change_columns(x, row, n, count,
                 [&](int64_t pack, Pack<T> entry) { return entry - sums.of[pack] * share; });
}

// A column of equal entries becomes zero, not what the rounding of its mean leaves.
template <class T>
void clear_constant(T* x, int64_t row, int64_t n, int64_t count) {
  const ColumnPacks<T> spread(x, row, n, count,
                              [x](Pack<T> sum, int64_t k, int lanes, Pack<T> entry) {
                                return sum + abs(entry - load_some(x + k, lanes));
                              });
  const Pack<T> zero(T(0));  // NaN is not zero
  change_columns(x, row, n, count, [&](int64_t pack, Pack<T> entry) {
    return select(spread.of[pack] == zero, zero, entry);
  });
}

template <class T>
void prepare_columns(const Cka<T>& p, const CkaSide<T>& side, int64_t first) {
  const int64_t width = side.given.width, count = std::min(kColumns, width - first);
  copy_columns(p, side, first, count);
  if (!p.centred) return;
  T* x = side.rows + first;
  clear_constant(x, width, p.n, count);
  // twice, for data far from zero
  for (int pass = 0; pass < 2; ++pass) subtract_means(x, width, p.n, count);
}

}  // namespace kdops::token_gram::KDOPS_ISA
