// CPU entry points of the fused Gram losses (fsp_loss, nst_loss), one copy per instruction set.
#pragma once

#include "common/simd/isa.h"
#include "gram/gram_simd.h"

namespace kdops::gram {

// D = scale_s X1 X2T - scale_t Y1 Y2T per item, X (student) and Y (teacher) maps of c1 and c2 rows.
template <class T>
struct GramLoss {
  Maps<T> x1, x2, y1, y2;
  int64_t c1, c2, student_length, teacher_length;
  T scale_s, scale_t, coefficient;
  bool columns = false;  // sum of the column norms of D instead of the sum of its squares
  bool positions;  // through length x length products (equal lengths and scales, squares only)
  bool symmetric;  // x2 is x1 and y2 is y1: g2 is absent and g1 holds both halves
  T* loss;         // one value per item
  T *g1 = nullptr, *g2 = nullptr;       // (B, c, student_length), or null
  bool inner1 = false, inner2 = false;  // of g1 and g2: (B, student_length, c) instead
};

KDOPS_ENTRY(gram_loss, GramLoss)

// coefficient * |XT X / student_channels - YT Y / teacher_channels|^2 per item, X and Y the rows
// (channels x length) of student and teacher as unit vectors.
template <class T>
struct NstLoss {
  Maps<T> student, teacher;
  int64_t student_channels, teacher_channels, length;
  T coefficient;
  bool by_channels;  // through channels x channels products (equal channels): see loss_simd.cpp
  T* loss;           // one value per item
  T* gradient;       // (B, student_channels, length), or null
  bool inner;        // the gradient is (B, length, student_channels) instead
};

KDOPS_ENTRY(nst_loss, NstLoss)

}  // namespace kdops::gram
