// CPU entry point of the full SVD's gradient, one copy per instruction set (common/simd/isa.h).
#pragma once

#include <cstdint>

#include "common/simd/isa.h"

namespace kdops::svd {

// gA (count x m x n) from U (m x r), S (r), Vh (r x n), r = min(m, n), and their cotangents
// (null: zero); all contiguous. lorentz: the degenerate policy "lorentz", else "mask". Serial.
KDOPS_PER_ISA(template <class T> void svd_backward(const T* gU, const T* gS, const T* gVh,
                                                   const T* U, const T* S, const T* Vh, T* gA,
                                                   int64_t count, int64_t m, int64_t n,
                                                   bool lorentz);)

}  // namespace kdops::svd
