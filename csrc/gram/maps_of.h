// A tensor as the maps that the CPU kernels of the gram room read.
#pragma once

#include "common/torch/dispatch.h"
#include "gram/gram_simd.h"

namespace kdops::gram {

template <class In>
Maps<In> maps_of(const Tensor& x) {
  return {pointer<In>(x), x.stride(0), x.stride(1), x.stride(2)};
}

}  // namespace kdops::gram
