// Entry points of the top-k SVD on the CPU, one set per instruction set; serial on `count`
// matrices.
//
// A count x m x n, U count x m x k, S count x k, Vh count x k x n, saved count x
// svd_topk_saved_size(m, n, k), all contiguous and row-major; with column_major A, and gA, are
// count x n x m. k <= 32 and k <= min(m, n); above a small side of 128 also 2 k < min(m, n). T is
// float or double.
#pragma once

#include <cstdint>

#include "common/simd/isa.h"

namespace kdops::svd {

KDOPS_PER_ISA(int64_t svd_topk_saved_size(int m, int n, int k);

              // U null: not computed. canonical: max(v) + min(v) > 0 for every right vector v.
              template <class T>
              void svd_topk_forward(const T* A, T* U, T* S, T* Vh, T* saved, int64_t count, int m,
                                    int n, int k, bool canonical, bool column_major);

              // gU, gS, gVh null: zero. U null: the forward did not compute it (then gU is null
              // too). lorentz: the degenerate policy "lorentz", else "mask".
              template <class T>
              void svd_topk_backward(const T* gU, const T* gS, const T* gVh, const T* A, const T* U,
                                     const T* S, const T* Vh, const T* saved, T* gA, int64_t count,
                                     int m, int n, int k, bool lorentz, bool column_major);)

}  // namespace kdops::svd
