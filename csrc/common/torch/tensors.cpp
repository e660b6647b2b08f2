#include "common/torch/tensors.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

namespace kdops {

Tensor empty_for(const Tensor& like, Sizes sizes, std::optional<ScalarType> dtype) {
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

Tensor empty_for(const Tensor& x) { return empty_for(x, x.sizes()); }

Tensor gradient_for(const Tensor& x, bool wanted) {
  return wanted ? empty_for(x) : empty_for(x, {0});
}

Tensor contiguous_of(const Tensor& x) {
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}
std::optional<Tensor> contiguous_of(const std::optional<Tensor>& x) {
  return x ? std::optional<Tensor>(contiguous_of(*x)) : std::nullopt;
}

}  // namespace kdops
