// Entry points of the top-k SVD on the CPU, one set per instruction set; serial.
//
// A is a batch of m x n matrices, U of m x k, S of k, Vh of k x n, saved of topk_saved_rows(p, k) x p,
// p = min(m, n), all contiguous and row-major; with column_major A, and gA, are n x m. k <= 32 and
// k <= p; above p = 128 also 2 k < p. T is float or double.
#pragma once

#include "common/simd/isa.h"

namespace kdops::svd {

template <class T>
struct TopkOutputs {
  T *U, *S, *Vh, *saved;  // U null: not computed
};

template <class T>
struct TopkForwardProblem {
  const T* A;
  TopkOutputs<T> out;
  int m, n, k;
  bool canonical;  // max(v) + min(v) > 0 for every right vector v
  bool column_major;
};

template <class T>
struct TopkInputs {
  const T *gU, *gS, *gVh;           // null: zero
  const T *A, *U, *S, *Vh, *saved;  // U null: the forward did not compute it (then gU is null too)
};

template <class T>
struct TopkBackwardProblem {
  TopkInputs<T> in;
  T* gA;
  int m, n, k;
  bool lorentz;  // the degenerate policy "lorentz", else "mask"
  bool column_major;
};

KDOPS_ENTRY(svd_topk_forward, TopkForwardProblem)
KDOPS_ENTRY(svd_topk_backward, TopkBackwardProblem)

}  // namespace kdops::svd
