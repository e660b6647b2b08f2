// CPU entry points of the gram room, one copy per instruction set (common/simd/isa.h).
#pragma once

#include <cstdint>

#include "common/simd/half.h"
#include "common/simd/isa.h"

namespace kdops::gram {

// One batch of maps: element (b, c, l) is data[b * batch + c * channel + l * position].
template <class In>
struct Maps {
  const In* data;
  int64_t batch, channel, position;
};

// Accumulation and result type: double for double, float for everything else.
template <class In>
struct GramResult {
  using Type = float;
};
template <>
struct GramResult<double> {
  using Type = double;
};
template <class In>
using gram_result_t = typename GramResult<In>::Type;

struct GramShape {
  int64_t c1, c2, length;
  bool symmetric;  // y is x: one half is computed and mirrored
};

// out (B, c1, c2) = scale * x yT for the matrices begin..end of the batch.
KDOPS_PER_ISA(template <class In> void gram_forward(GramShape shape, gram_result_t<In> scale,
                                                    Maps<In> x, Maps<In> y, gram_result_t<In>* out,
                                                    int64_t begin, int64_t end);)

// gx (B, c1, length) = scale * g y, where element (b, i, j) of g is grad[b, i, j], its transpose
// (transposed) or their sum (symmetric). Rows of g lie c2 (transposed: c1) apart.
KDOPS_PER_ISA(template <class In>
              void gram_backward(GramShape shape, bool transposed, gram_result_t<In> scale,
                                 const gram_result_t<In>* grad, Maps<In> y, gram_result_t<In>* gx,
                                 int64_t begin, int64_t end);)

}  // namespace kdops::gram
