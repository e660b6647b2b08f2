// Symmetric eigenvalue decompositions, ascending like torch.linalg.eigh.
#pragma once

#include "svd/full/cpu/signs.h"
#include "svd/full/cpu/square_hybrid.h"
#include "svd/full/cpu/square_lanes.h"
#include "svd/full/full_simd.h"

namespace kdops::svd::KDOPS_ISA {

template <class T>
void eigh(const EighProblem<T>& problem, int64_t begin, int64_t end) {
  const int n = problem.n;
  const int64_t square = static_cast<int64_t>(n) * n;
  SquareBatch<T> eigen(n, false, true, false);
  Scratch<T> keys(n), ones(n);
  Scratch<int> order(n);
  std::fill_n(ones.get(), n, T(1));
  const int64_t group = std::min(eigen.group, Pack<T>::kLanes);
  for (int64_t b0 = begin; b0 < end; b0 += group) {
    const int lanes = static_cast<int>(std::min<int64_t>(group, end - b0));
    eigen.symmetric(problem.a + b0 * square, square, lanes);
    for (int l = 0; l < lanes; ++l) {
      T *w = problem.values + (b0 + l) * n, *out = problem.vectors + (b0 + l) * square;
      if (!eigen.finite[l]) {
        std::fill_n(w, n, std::numeric_limits<T>::quiet_NaN());
        std::fill_n(out, square, std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      for (int j = 0; j < n; ++j) keys[j] = -eigen.values(l)[j];
      sort_descending(keys.get(), n, order.get());
      for (int j = 0; j < n; ++j) w[j] = eigen.values(l)[order[j]] * eigen.scale[l];
      write_columns(eigen.v(l), eigen.stride, order.get(), ones.get(), n, n, out, n);
    }
  }
}

}  // namespace kdops::svd::KDOPS_ISA
