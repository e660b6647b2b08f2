// CPU entry points of rbf_affinity and rbf_affinity_loss, one copy per instruction set, and what the
// glue hands them: plain structs, no torch.
#pragma once

#include <cstdint>

#include "common/simd/isa.h"

namespace kdops::rbf {

// Rows of K, or of a gradient, that one item computes, a block; blocks in a batch entry of so many.
inline constexpr int64_t kBlockRows = 32;
inline int64_t blocks_of(int64_t count) { return (count + kBlockRows - 1) / kBlockRows; }

// A set of rows over the batch: (batch, count, width) contiguous, with what is derived from it.
// A kernel that does not need `transposed` may find null there. Norms are squared, sizes are not.
template <class T>
struct RowSet {
  const T* given;
  T *centred, *transposed, *norms, *sizes;  // transposed: (batch, width, count) of the centred rows
  int64_t count, width;
};

template <class T>
struct AffinityProblem {
  RowSet<T> x, y;
  bool symmetric;  // y is x
  const T* gamma;  // one for every batch entry
  T* out;          // (batch, x.count, y.count)
};

// Which of grad * K a gradient gathers: its rows (for x), its columns (for y), both (y = x).
enum class Sides { rows, columns, both };

template <class T>
struct AffinityBackward {
  RowSet<T> own, other;  // the rows whose gradient is taken, and those they meet
  Sides sides;
  const T *gamma, *grad, *k;  // grad and k (batch, x.count, y.count)
  T* out;                     // (batch, own.count, width)
};

// The gradient of the bandwidths, in parts.
template <class T>
struct AffinitySlope {
  RowSet<T> x, y;
  const T *grad, *k;  // (batch, x.count, y.count)
  double* sums;       // (batch, blocks): sum of grad * k * distance^2
};

template <class T>
struct AffinityLossProblem {
  RowSet<T> student, teacher;  // one batch entry
  double gamma;
  bool gradients;
  T* out;                     // (N, D_S) gradient of the mean
  double *losses, *g_gammas;  // one per block: sums over its pairs
};

// The centre (batch, width) of the rows of x, and of y unless y.given is null, for the batch
// entries begin..end.
KDOPS_KERNEL(rbf_means, const RowSet<T>& x, const RowSet<T>& y, T* centre)

// Rows begin..end of all batch entries: centred, their norms and sizes, and where the set has a
// place for it, the transpose. `centre` (batch, width).
KDOPS_KERNEL(rbf_centre, const RowSet<T>& set, const T* centre)

// Blocks begin..end of K; their order evens out the triangle of the symmetric case.
KDOPS_ENTRY(rbf_affinity_blocks, AffinityProblem)

// Blocks begin..end of the gradient of one set of rows.
KDOPS_ENTRY(rbf_affinity_backward_blocks, AffinityBackward)

// Blocks begin..end of the sums of the bandwidths' gradient.
KDOPS_ENTRY(rbf_affinity_slopes, AffinitySlope)

// Blocks begin..end of the loss and its gradient.
KDOPS_ENTRY(rbf_affinity_loss_blocks, AffinityLossProblem)

}  // namespace kdops::rbf
