// One side (front or back) of an item of svd_rbf_loss, gathered into contiguous scratch.
#pragma once

#include <cstdint>

#include "common/simd/pack_loop.h"
#include "rbf/svd_rbf_simd.h"

namespace kdops::rbf::KDOPS_ISA {

// Arrays of padded() values; beyond `count` the inputs repeat the first one (zero if none).
template <class T>
struct Side {
  T *student, *teacher, *shift;  // shift = teacher - student, exact where they are close
  T *gradient, *partial;         // and a part of it
  int64_t count;

  // A multiple of 64 bytes of float and of four packs of double: no kernel needs a remainder loop.
  static constexpr int64_t kPadding = 32;
  static int64_t padded(int64_t count) { return (count + kPadding - 1) / kPadding * kPadding; }
  int64_t padded() const { return padded(count); }
  static int64_t scratch(int64_t count) { return 5 * padded(count); }

  Side(T* memory, int64_t values)
      : student(memory),
        teacher(memory + padded(values)),
        shift(memory + 2 * padded(values)),
        gradient(memory + 3 * padded(values)),
        partial(memory + 4 * padded(values)),
        count(values) {}

  void load(const Vectors<T>& s, const Vectors<T>& t, int64_t sample, int64_t component) {
    const T* from_s = s.data + sample * s.batch + component * s.component;
    const T* from_t = t.data + sample * t.batch + component * t.component;
    for (int64_t i = 0; i < count; ++i) {
      student[i] = from_s[i * s.row];
      teacher[i] = from_t[i * t.row];
      shift[i] = teacher[i] - student[i];
    }
    for (int64_t i = count; i < padded(); ++i) {
      student[i] = student[0];
      teacher[i] = teacher[0];
      shift[i] = shift[0];
    }
  }

  T teacher_sum() const { return short_sum(teacher, count); }

  // Largest |value - centre| of student and teacher; NaN is not seen.
  T reach(T centre) const {
    using P = Pack<T>;
    P largest(T(0));
    for (int64_t i = 0; i < padded(); i += P::kLanes) {
      largest = max(abs(P::load(student + i) - P(centre)), largest);
      largest = max(abs(P::load(teacher + i) - P(centre)), largest);
    }
    return reduce_max(largest);
  }

  // The gradient times `factor` into column `component` of sample `sample` of out (B, count, k).
  void store_gradient(T factor, T* out, int64_t sample, int64_t component, int64_t components) {
    T* target = out + sample * count * components + component;
    for (int64_t i = 0; i < count; ++i) target[i * components] = factor * gradient[i];
  }
};

}  // namespace kdops::rbf::KDOPS_ISA
