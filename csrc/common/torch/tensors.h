// New tensors and contiguous ones by torch's C functions. torch::stable's new_empty and contiguous
// look an operator up by its name and box its arguments: a microsecond or two each, several times a
// call. Callers: the glue (*_cpu.cpp, *_cuda.cu) of every room.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <vector>

#include "common/torch/dispatch.h"

namespace kdops {

using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

// Uninitialised and contiguous, on the device of `like` and, if not told otherwise, of its dtype.
inline Tensor empty_for(const Tensor& like, Sizes sizes,
                        std::optional<ScalarType> dtype = std::nullopt) {
  int32_t type, device, index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &index));
  if (dtype) type = torch::stable::detail::to<int32_t>(torch::stable::detail::from(*dtype));
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0; stride *= std::max<int64_t>(sizes[i], 1))
    strides[i] = stride;
  AtenTensorHandle result;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()),
                                                         sizes.data(), strides.data(), type, device,
                                                         index, &result));
  return Tensor(result);
}

inline Tensor empty_for(const Tensor& x) { return empty_for(x, x.sizes()); }

// For the gradient of x: empty where that is not wanted.
inline Tensor gradient_for(const Tensor& x, bool wanted) {
  return wanted ? empty_for(x) : empty_for(x, {0});
}

// A number as a tensor of T. CPU only.
template <class T>
Tensor scalar_for(const Tensor& like, double value) {
  Tensor out = empty_for(like, {});
  *pointer<T>(out) = static_cast<T>(value);
  return out;
}

inline Tensor contiguous_of(const Tensor& x) {
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}
inline std::optional<Tensor> contiguous_of(const std::optional<Tensor>& x) {
  return x ? std::optional<Tensor>(contiguous_of(*x)) : std::nullopt;
}

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
