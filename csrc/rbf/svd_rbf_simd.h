// CPU entry points of svd_rbf_loss, one copy per instruction set (common/simd/isa.h).
#pragma once

#include <cstdint>

#include "common/simd/isa.h"
#include "rbf/svd_rbf_problem.h"

namespace kdops::rbf {

// Losses and (where the problem has a place for them) gradients of the items begin..end.
KDOPS_PER_ISA(template <class T>
              void svd_rbf_items(const SvdRbfProblem<T>& problem, int64_t begin, int64_t end);)

}  // namespace kdops::rbf
