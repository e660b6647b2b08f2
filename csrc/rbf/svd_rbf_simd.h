// CPU entry points of svd_rbf_loss, one copy per instruction set (common/simd/isa.h), and what the glue
// hands them: strided inputs, contiguous outputs, and the item order. Plain structs, no torch.
//
// An item is one (sample b, component c): D_back values against D_front values. Item number
// b * k + c.
#pragma once

#include <cstdint>

#include "common/simd/isa.h"

namespace kdops::rbf {

// (B, D, k) with any strides.
template <class T>
struct Vectors {
  const T* data;
  int64_t batch, row, component;  // strides
};

template <class T>
struct SvdRbfProblem {
  Vectors<T> student_front, student_back, teacher_front, teacher_back;
  int64_t front, back, components;  // D_front, D_back, k
  double beta, scale;
  bool gradients;
  double* losses;                     // one per item, unscaled
  T *gradient_front, *gradient_back;  // (B, D, k) contiguous
};

// Losses and (where the problem has a place for them) gradients of the items begin..end.
KDOPS_ENTRY(svd_rbf_items, SvdRbfProblem)

}  // namespace kdops::rbf
