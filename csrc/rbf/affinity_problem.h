// What the glue hands to the affinity kernels. Plain structs, no torch.
#pragma once

#include <cstdint>

namespace kdops::rbf {

// A set of rows over the batch: (batch, count, width) contiguous, with what is derived from it.
// A kernel that does not need `transposed` or `norms` may find null there.
template <class T>
struct RowSet {
  const T* given;
  T *centred, *transposed, *norms;  // transposed: (batch, width, count) of the centred rows
  int64_t count, width;
};

template <class T>
struct AffinityProblem {
  RowSet<T> x, y;
  bool symmetric;         // y is x
  const T* gamma;         // one for every batch entry
  T* out;                 // (batch, x.count, y.count)
  int64_t block, blocks;  // rows in a block, blocks in a batch entry
};

// Which of grad * K a gradient gathers: its rows (for x), its columns (for y), both (y = x).
enum class Sides { rows, columns, both };

template <class T>
struct AffinityBackward {
  RowSet<T> own, other;  // the rows whose gradient is taken, and those they meet
  Sides sides;
  const T *gamma, *grad, *k;  // grad and k (batch, x.count, y.count)
  T* out;                     // (batch, own.count, width)
  double* moments;            // <row, gradient> of every own row, or null
  int64_t block, blocks;
};

template <class T>
struct AffinityLossProblem {
  RowSet<T> student, teacher;  // one batch entry
  double gamma;
  bool gradients;
  T* out;                     // (N, D_S) gradient of the mean
  double *losses, *g_gammas;  // one per block: sums over its pairs
  int64_t block;
};

}  // namespace kdops::rbf
