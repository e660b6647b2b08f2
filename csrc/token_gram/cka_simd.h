// CPU entry points of cka_loss, one copy per instruction set, and what the glue hands them. Plain
// structs, no torch.
#pragma once

#include "token_gram/anchoring_simd.h"

namespace kdops::token_gram {

template <class T>
struct CkaSide {
  Tokens<T> given;
  T scale;     // a power of two that brings the largest entry to [1/2, 1)
  T* rows;     // (n x width) scaled and, where asked for, centred
  T* kernel;   // K = rows rowsT (n x n)
  double own;  // 1 / |K|, or 0
};

// A matrix on its way. Of its rows only `n` count, those numbered `present`.
template <class T>
struct Cka {
  CkaSide<T> student, teacher;
  const int64_t* present;
  int64_t n;
  bool centred;
  double* sums;      // of an item each: a block of columns, of K, or of rows
  double loss;       // 1 - CKA
  T* pull;           // (n x student's width) dloss/drows up to `factor`
  T factor, weight;  // the cotangent of the student is pull factor scale weight
  T* gradient;       // its rows, all of them
};

// The largest size in groups begin..end of kTokenGroup rows, the student's and then the teacher's,
// into sums. NaN is not seen.
KDOPS_ENTRY(cka_largest, Cka)

// Blocks begin..end of kColumns columns, the student's and then the teacher's: scaled, centred.
inline constexpr int64_t kColumns = 64;
inline int64_t column_blocks(int64_t width) { return (width + kColumns - 1) / kColumns; }
KDOPS_ENTRY(cka_columns, Cka)

// Blocks begin..end of kFeatureBlock x kFeatureBlock entries of the upper half of K and their
// mirror images, the student's and then the teacher's; their squares into sums.
KDOPS_ENTRY(cka_kernels, Cka)

// Groups begin..end of kTokenGroup rows of K_S/|K_S| - K_T/|K_T|: their squares into sums.
KDOPS_ENTRY(cka_differences, Cka)

// Items begin..end, a block of kFeatureBlock rows with kPullColumns columns each, of the pull.
inline constexpr int64_t kPullColumns = 384;
inline int64_t pull_chunks(int64_t width) { return (width + kPullColumns - 1) / kPullColumns; }
KDOPS_ENTRY(cka_pull, Cka)

// Groups begin..end of kTokenGroup rows: from the pull to the gradient.
KDOPS_ENTRY(cka_back, Cka)

}  // namespace kdops::token_gram
