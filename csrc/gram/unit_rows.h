// The channels of a map as unit vectors and the way back: what nst_loss does around its products.
// Maps lie as rows of channels, or (tokens) with the channels side by side: as columns.
#pragma once

#include "common/blas/gemm.h"
#include "common/shared/unit_row.h"
#include "common/simd/long_sum.h"
#include "common/simd/scratch.h"
#include "common/simd/unit_vector.h"

namespace kdops::gram::KDOPS_ISA {

// x (rows x length) as contiguous unit rows, by the rule of unit_row.h; inverse: 1 / norm, or 0.
template <class T>
void make_unit_rows(View<const T> x, int64_t rows, int64_t length, T* out, T* inverse) {
  for (int64_t r = 0; r < rows; ++r) {
    T* row = out + r * length;
    const T* from = x.data + r * x.row;
    for (int64_t l = 0; l < length; ++l) row[l] = from[l * x.col];
    inverse[r] = make_unit(row, length);
  }
}

// g = (g - u <u, g>) / |x|, the cotangent of x from the one of its unit rows u.
template <class T>
void unit_rows_back(const T* u, const T* inverse, int64_t rows, int64_t length, T* g) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* unit = u + r * length;
    T* row = g + r * length;
    keep_across(unit, static_cast<T>(long_inner(unit, row, length)), inverse[r], length, row);
  }
}

// sums[j] = sum of term(i, j, lanes) over the rows i, for the packs of columns j.
template <class T, class Term>
void column_sums(int64_t rows, int64_t cols, T* sums, const Term& term) {
  Scratch<T> part(cols), lost(cols);
  std::fill_n(sums, cols, T(0));
  std::fill_n(lost.get(), cols, T(0));
  for (int64_t first = 0; first < rows; first += kSumBlock) {
    std::fill_n(part.get(), cols, T(0));
    for (int64_t i = first; i < std::min(rows, first + kSumBlock); ++i)
      for_packs<T>(cols, [&](int64_t j, int lanes) {
        T* sum = part.get() + j;
        store_some(load_some(sum, lanes) + term(i, j, lanes), sum, lanes);
      });
    add_to_long_sums(part.get(), cols, sums, lost.get());
  }
}

// make_unit_rows of the columns of x (rows x cols), whose columns lie side by side.
template <class T>
void make_unit_columns(View<const T> x, int64_t rows, int64_t cols, T* out, T* inverse) {
  using P = Pack<T>;
  Scratch<T> scales(cols), factors(cols);
  T *scale = scales.get(), *factor = factors.get();
  std::fill_n(scale, cols, T(0));
  const auto entry = [&](int64_t i, int64_t j, int lanes) {
    return load_some(x.data + i * x.row + j, lanes);
  };
  for (int64_t i = 0; i < rows; ++i)
    for_packs<T>(cols, [&](int64_t j, int lanes) {
      store_some(max(abs(entry(i, j, lanes)), load_some(scale + j, lanes)), scale + j, lanes);
    });
  for (int64_t j = 0; j < cols; ++j) scale[j] = row_scale(scale[j]);
  column_sums(rows, cols, factor, [&](int64_t i, int64_t j, int lanes) {
    const P value = load_some(scale + j, lanes) * entry(i, j, lanes);
    return value * value;
  });
  for (int64_t j = 0; j < cols; ++j) {
    const auto known = unit_factors(scale[j], factor[j]);
    inverse[j] = known.inverse;
    factor[j] = known.unit;
  }
  for (int64_t i = 0; i < rows; ++i)
    for_packs<T>(cols, [&](int64_t j, int lanes) {
      const P value = load_some(scale + j, lanes) * entry(i, j, lanes);
      store_some(value * load_some(factor + j, lanes), out + i * cols + j, lanes);
    });
}

// unit_rows_back of the columns u of unit vectors, contiguous rows of them as of g.
template <class T>
void unit_columns_back(const T* u, const T* inverse, int64_t rows, int64_t cols, T* g) {
  Scratch<T> along(cols);
  const auto at = [cols](auto* data, int64_t i, int64_t j, int lanes) {
    return load_some(data + i * cols + j, lanes);
  };
  column_sums(rows, cols, along.get(), [&](int64_t i, int64_t j, int lanes) {
    return at(u, i, j, lanes) * at(g, i, j, lanes);
  });
  for (int64_t i = 0; i < rows; ++i)
    for_packs<T>(cols, [&](int64_t j, int lanes) {
      const Pack<T> rest = at(g, i, j, lanes) - at(along.get(), 0, j, lanes) * at(u, i, j, lanes);
      store_some(load_some(inverse + j, lanes) * rest, g + i * cols + j, lanes);
    });
}

}  // namespace kdops::gram::KDOPS_ISA
