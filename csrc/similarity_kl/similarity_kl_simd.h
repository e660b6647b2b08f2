// CPU entry points of the similarity KL, one copy per instruction set. In is what the rows are given
// in, T what is computed in.
#pragma once

#include "common/simd/isa.h"
#include "similarity_kl/problem.h"

namespace kdops::similarity_kl {

// Factors of the rows of batch entries begin..end.
KDOPS_PER_ISA(template <class In>
              void kl_measure(const Given<In>& given, Norm norm, int64_t begin, int64_t end);)

// Centres and placed rows of batch entries begin..end.
KDOPS_PER_ISA(template <class In, class T>
              void kl_place(const Placing<In, T>& problem, int64_t begin, int64_t end);)

// logs of the rows of blocks begin..end of all batch entries.
KDOPS_ENTRY(kl_statistics, Statistics)

// Losses of blocks begin..end and their rows of the gradient.
KDOPS_PER_ISA(template <class In, class T>
              void kl_pull(const Pull<In, T>& problem, int64_t begin, int64_t end);)

}  // namespace kdops::similarity_kl
