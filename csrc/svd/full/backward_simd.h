// CPU entry point of the full SVD's gradient, one copy per instruction set (common/simd/isa.h).
#pragma once

#include "common/simd/isa.h"

namespace kdops::svd {

// gA (m x n) from U (m x r), S (r), Vh (r x n), r = min(m, n), and their cotangents, of every matrix
// of a batch; all contiguous. Serial.
template <class T>
struct SvdBackwardProblem {
  const T *gU, *gS, *gVh;  // null: zero
  const T *U, *S, *Vh;
  T* gA;
  int64_t m, n;
  bool lorentz;  // the degenerate policy "lorentz", else "mask"
};

KDOPS_ENTRY(svd_backward, SvdBackwardProblem)

}  // namespace kdops::svd
