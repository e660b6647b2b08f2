// What svd_rbf_loss on the GPU is launched with, and the values of an item.
#pragma once

#include "common/gpu/lane.cuh"

namespace kdops::rbf::gpu {

// (B, D, k) with any strides, in elements.
template <class T>
struct SvdRbfInput {
  const T* data;
  int64_t batch, row, component;
  KDOPS_DEVICE T at(int64_t b, int d, int c) const {
    return data[b * batch + d * row + c * component];
  }
};

template <class T>
struct SvdRbfLaunch {
  SvdRbfInput<T> student_front, student_back, teacher_front, teacher_back;
  int front, back, components;
  T root;                        // sqrt(log2(e) / beta): K = 2^-(root (back - front))^2
  T factor;                      // -4 scale sqrt(ln(2) / beta)
  double unit, low_rank_factor;  // sqrt(2 / beta), 2 unit scale
  double reach;  // the low-rank form is for items whose products of scaled values are below this
  bool gradients;
  double* losses;                     // one per item, unscaled
  T *gradient_front, *gradient_back;  // (B, D, k) contiguous
};

// The front value of a lane, or a back value.
template <class T>
struct SvdRbfValue {
  T student, teacher, shift;  // shift = teacher - student
};

template <class T>
KDOPS_DEVICE SvdRbfValue<T> svd_rbf_value(const SvdRbfInput<T>& student,
                                          const SvdRbfInput<T>& teacher, int64_t b, int d, int c) {
  const T s = student.at(b, d, c), t = teacher.at(b, d, c);
  return {s, t, t - s};
}

// Up to where the form of rank 8 is exact to rounding: reach^7 / 7! is two units of T. Small items are
// left to the pairs, which cost less there.
template <class T>
double svd_rbf_reach(int64_t front, int64_t back) {
  if (front * back < (1 << 13)) return 0;
  return sizeof(T) == 4 ? 0.383 : 0.0216;
}

}  // namespace kdops::rbf::gpu
