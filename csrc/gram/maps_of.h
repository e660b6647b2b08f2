// A tensor as the maps that the CPU kernels of the gram room read.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include "gram/gram_simd.h"

namespace kdops::gram {

template <class In>
Maps<In> maps_of(const torch::stable::Tensor& x) {
  return {static_cast<const In*>(x.data_ptr()), x.stride(0), x.stride(1), x.stride(2)};
}

}  // namespace kdops::gram
