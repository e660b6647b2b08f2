// CPU entry points of the alignment of singular vectors, one copy per instruction set
// (common/simd/isa.h), for the samples begin..end.
#pragma once

#include "align/align.h"
#include "common/simd/isa.h"

namespace kdops::align {

KDOPS_PER_ISA(template <class T>
              void align_vectors(const Alignment<T>& p, int64_t begin, int64_t end);)

KDOPS_PER_ISA(template <class T> void align_vectors_backward(const AlignmentGradient<T>& p,
                                                             int64_t begin, int64_t end);)

}  // namespace kdops::align
