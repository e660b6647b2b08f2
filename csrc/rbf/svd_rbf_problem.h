// What svd_rbf_loss hands to its kernels: strided inputs, contiguous outputs, and the item order.
//
// An item is one (sample b, component c): D_back values against D_front values. Item number
// b * k + c. Plain structs, no torch, shared by the CPU glue and every instruction set.
#pragma once

#include <cstdint>

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

}  // namespace kdops::rbf
