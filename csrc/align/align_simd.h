// CPU entry points of the alignment of singular vectors, one copy per instruction set
// (common/simd/isa.h), for the samples begin..end.
#pragma once

#include "align/align.h"
#include "common/simd/isa.h"

namespace kdops::align {

KDOPS_ENTRY(align_vectors, Alignment)
KDOPS_ENTRY(align_vectors_backward, AlignmentGradient)

}  // namespace kdops::align
