// rbf_affinity_loss: a block of rows against all columns, one tile of both kernels at a time.
//
// A tile of student products and one of teacher products become K_S - K_T (expm1 form), the loss,
// dL/dgamma and the weights (K_S - K_T) K_S of the student's gradient, and are then forgotten:
// memory is O(N D). Every pair is met twice, as (i, j) and (j, i), so that a block owns its rows of
// the gradient and no two threads write to the same place. Where the sum over a tile cancels, that
// part of a row's gradient is taken from differences.
#pragma once

#include "common/simd/scratch.h"
#include "rbf/affinity.h"

namespace kdops::rbf::KDOPS_ISA {

inline constexpr int64_t kLossColumns = 256;

struct LossSums {
  double loss = 0, slope = 0;  // slope: gamma / 2 times the sum for dL/dgamma
};

// Columns j0..j1 of both sides.
template <class T>
struct LossTile {
  const RowSet<T>&s, &t;
  T gamma;
  int64_t j0, j1;
};

// One row i of a tile: products in `student` and `teacher`, weights out in `student`. True if these
// weights cancel.
template <class T>
bool loss_row(const LossTile<T>& tile, int64_t i, T* student, const T* teacher, LossSums& sums) {
  using P = Pack<T>;
  const RowSet<T>&s = tile.s, &t = tile.t;
  const int64_t j0 = tile.j0, j1 = tile.j1;
  const P g(rate_of(tile.gamma)), zero(T(0)), large(T(1e30));
  P loss = zero, slope = zero;
  Cancellation<T> cancellation;
  for (int64_t j = j0; j < j1; j += P::kLanes) {
    const int count = static_cast<int>(std::min<int64_t>(P::kLanes, j1 - j));
    const int64_t at = j - j0;
    // Beyond 1e30 a Gaussian is zero, and Inf - Inf would be NaN; this order lets NaN through.
    const P p = min(large, g * distances(s, i, s, j, count, load_some(student + at, count)));
    const P q = min(large, g * distances(t, i, t, j, count, load_some(teacher + at, count)));
    const P gap = q - p;
    P far;
    const P lost = exp2m1_and_exp2(-abs(gap), far);
    const P base = exp2_of_negative(-min(p, q));
    const P delta = first_lanes(copysign(base * lost, gap), count);
    const auto behind = gap < zero;
    const P k_s = select(behind, base * far, base), k_t = select(behind, base, base * far);
    const P weight = delta * k_s;
    store_some(weight, student + at, count);
    loss = fma(delta, delta, loss);
    slope = fma(delta, q * k_t - p * k_s, slope);
    cancellation.add(abs(weight), P(s.sizes[i]) + load_some(s.sizes + j, count), sqrt(p));
  }
  sums.loss += static_cast<double>(reduce_add(loss));
  sums.slope += std::numbers::ln2 * static_cast<double>(reduce_add(slope));
  return cancellation.lossy(1 / std::sqrt(g.lane(0)));
}

// What a block knows of its gradient besides the products of the weights with the rows: the sums of
// the weights, and the lossy parts, summed from differences.
template <class T>
struct LossPull {
  Scratch<T> sums, direct;

  LossPull(int64_t rows, int64_t width) : sums(rows), direct(rows * width) {
    std::fill(sums.get(), sums.get() + rows, T(0));
    std::fill(direct.get(), direct.get() + rows * width, T(0));
  }
  // Weights of row i of s with the columns j0..j1; lossy ones are taken out of the product.
  void add(const RowSet<T>& s, int64_t i, int64_t place, int64_t j0, int64_t j1, bool lossy,
           T* weights) {
    if (!lossy) {
      sums[place] += short_sum(weights, j1 - j0);
      return;
    }
    add_differences(weights, j1 - j0, s.given + i * s.width, s.given + j0 * s.width, s.width,
                    s.width, T(1), direct.get() + place * s.width);
    std::fill(weights, weights + (j1 - j0), T(0));
  }
};

// Rows i0..i1 against all: sums, and rows i0..i1 of the gradient times `factor` when wanted.
template <class T>
LossSums loss_block(const RowSet<T>& s, const RowSet<T>& t, int64_t i0, int64_t i1, T gamma,
                    bool gradients, T factor, T* gradient) {
  const int64_t rows = i1 - i0, n = s.count, width = s.width;
  Scratch<T> student(rows * kLossColumns), teacher(rows * kLossColumns);
  LossPull<T> pull(gradients ? rows : 0, width);
  LossSums sums;
  for (int64_t j0 = 0; j0 < n; j0 += kLossColumns) {
    const int64_t j1 = std::min(j0 + kLossColumns, n), columns = j1 - j0;
    const LossTile<T> tile{s, t, gamma, j0, j1};
    gemm<T>(rows, columns, width, T(1), {s.centred + i0 * width, width, 1},
            {s.transposed + j0, n, 1}, {student.get(), kLossColumns, 1});
    gemm<T>(rows, columns, t.width, T(1), {t.centred + i0 * t.width, t.width, 1},
            {t.transposed + j0, n, 1}, {teacher.get(), kLossColumns, 1});
    for (int64_t i = 0; i < rows; ++i) {
      T* weights = student.get() + i * kLossColumns;
      const bool lossy = loss_row(tile, i0 + i, weights, teacher.get() + i * kLossColumns, sums);
      if (gradients) pull.add(s, i0 + i, i, j0, j1, lossy, weights);
    }
    if (gradients)
      gemm<T>(rows, width, columns, T(1), {student.get(), kLossColumns, 1},
              {s.centred + j0 * width, width, 1}, {gradient, width, 1}, j0 > 0);
  }
  if (gradients)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t k = 0; k < width; ++k) {
        T& value = gradient[i * width + k];
        const T product = pull.sums[i] * s.centred[(i0 + i) * width + k] - value;
        value = factor * (product + pull.direct[i * width + k]);
      }
  return sums;
}

}  // namespace kdops::rbf::KDOPS_ISA
