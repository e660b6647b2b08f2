// CPU entry points of rbf_affinity and rbf_affinity_loss, one copy per instruction set.
#pragma once

#include "common/simd/isa.h"
#include "rbf/affinity_problem.h"

namespace kdops::rbf {

// The centre (batch, width) of the rows of x, and of y unless y.given is null, for the batch
// entries begin..end.
KDOPS_PER_ISA(template <class T> void rbf_means(const RowSet<T>& x, const RowSet<T>& y, T* centre,
                                                int64_t begin, int64_t end);)

// Rows begin..end of all batch entries: centred, and where the set has a place for them, norms and
// transpose. `centre` (batch, width).
KDOPS_PER_ISA(template <class T>
              void rbf_centre(const RowSet<T>& set, const T* centre, int64_t begin, int64_t end);)

// Blocks begin..end of K; their order evens out the triangle of the symmetric case.
KDOPS_PER_ISA(template <class T> void rbf_affinity_blocks(const AffinityProblem<T>& problem,
                                                          int64_t begin, int64_t end);)

// Blocks begin..end of the gradient of one set of rows.
KDOPS_PER_ISA(template <class T>
              void rbf_affinity_backward_blocks(const AffinityBackward<T>& problem, int64_t begin,
                                                int64_t end);)

// Blocks begin..end of the loss and its gradient.
KDOPS_PER_ISA(template <class T>
              void rbf_affinity_loss_blocks(const AffinityLossProblem<T>& problem, int64_t begin,
                                            int64_t end);)

}  // namespace kdops::rbf
