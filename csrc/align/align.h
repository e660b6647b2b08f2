// What the alignment of singular vectors takes on every device; B samples of vectors of length D,
// K' candidates of the student and k vectors of the teacher. Strides are free: vectors that lie as
// columns or as rows are read where they are. No torch header.
#pragma once

#include <cstdint>

namespace kdops::align {

// Entry d of vector i of sample b is data[b * batch + d * entry + i * vector].
template <class T>
struct Vectors {
  const T* data;
  int64_t batch, entry, vector;
};

struct AlignSizes {
  int64_t batch, length, candidates, count;  // B, D, K', k
};

template <class T>
struct Alignment {
  AlignSizes sizes;
  Vectors<T> student, teacher;
  T* aligned;       // (B, D, k)
  int64_t* choice;  // (B, k): 1 + the chosen candidate's index, negative if it was turned round
};

template <class T>
struct AlignmentGradient {
  AlignSizes sizes;
  Vectors<T> grad;  // of aligned
  const int64_t* choice;
  T* student;  // (B, K', D): every candidate's gradient in one piece
};

}  // namespace kdops::align
