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

// out (B, c1, c2) = scale * x yT.
template <class In>
struct GramForward {
  GramShape shape;
  Maps<In> x, y;
  gram_result_t<In> scale;
  gram_result_t<In>* out;
};

// gx (B, c1, length) = scale * g y, where element (b, i, j) of g is grad[b, i, j], its transpose
// (transposed) or their sum (symmetric). Rows of g lie c2 (transposed: c1) apart.
template <class In>
struct GramBackward {
  GramShape shape;
  bool transposed;
  const gram_result_t<In>* grad;
  Maps<In> y;
  gram_result_t<In> scale;
  gram_result_t<In>* gx;
};

KDOPS_ENTRY(gram_forward, GramForward)
KDOPS_ENTRY(gram_backward, GramBackward)

}  // namespace kdops::gram
