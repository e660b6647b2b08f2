// New tensors and contiguous ones by torch's C functions. torch::stable's new_empty and contiguous
// look an operator up by its name and box its arguments: a microsecond or two each, several times a
// call. Callers: the glue (*_cpu.cpp, *_cuda.cu) of every room.
#pragma once

#include <optional>

#include "common/torch/dispatch.h"

namespace kdops {

using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

// Uninitialised and contiguous, on the device of `like` and, if not told otherwise, of its dtype.
Tensor empty_for(const Tensor& like, Sizes sizes, std::optional<ScalarType> dtype = std::nullopt);
Tensor empty_for(const Tensor& x);

// For the gradient of x: empty where that is not wanted.
Tensor gradient_for(const Tensor& x, bool wanted);

// A number as a tensor of T. CPU only.
template <class T>
Tensor scalar_for(const Tensor& like, double value) {
  Tensor out = empty_for(like, {});
  *pointer<T>(out) = static_cast<T>(value);
  return out;
}

Tensor contiguous_of(const Tensor& x);
std::optional<Tensor> contiguous_of(const std::optional<Tensor>& x);

// Where a tensor's data lie; null for no tensor and for one without entries.
template <class T>
T* pointer_or_null(const std::optional<Tensor>& x) {
  return x && x->numel() ? pointer<T>(*x) : nullptr;
}

// The data and the strides of a tensor of three dimensions, as a room's struct of both.
template <class Strided>
Strided strided(const Tensor& x) {
  return {static_cast<decltype(Strided::data)>(x.data_ptr()), x.stride(0), x.stride(1),
          x.stride(2)};
}

}  // namespace kdops
