// The operators of torch on the device: each runs its CPU kernel on aliases of the same memory.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "device/tensors.h"
#include "memory/arena.h"

namespace emulator {
namespace {

at::Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device>, std::optional<bool>) {
  const auto type = dtype ? c10::scalarTypeToTypeMeta(*dtype) : at::get_default_dtype();
  const size_t bytes = at::detail::computeStorageNbytes(sizes, strides, type.itemsize());
  auto t = at::detail::make_tensor<c10::TensorImpl>(
      new_storage(bytes), c10::DispatchKeySet(c10::DispatchKey::CUDA), type);
  t.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides);
  return t;
}

at::Tensor empty(c10::IntArrayRef sizes, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout> layout, std::optional<at::Device> device,
                 std::optional<bool> pinned, std::optional<at::MemoryFormat> format) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(sizes[i], 1);
  }
  auto t = empty_strided(sizes, strides, dtype, layout, device, pinned);
  const auto wanted = format.value_or(at::MemoryFormat::Contiguous);
  if (wanted != at::MemoryFormat::Contiguous && wanted != at::MemoryFormat::Preserve)
    t.unsafeGetTensorImpl()->empty_tensor_restride(wanted);
  return t;
}

// The arguments of a call on the stack, moved to the host.
class HostCall {
 public:
  HostCall(const c10::FunctionSchema& schema, torch::jit::Stack& stack) {
    const size_t count = schema.arguments().size(), first = stack.size() - count;
    for (size_t i = 0; i < count; ++i) {
      const auto* alias = schema.arguments()[i].alias_info();
      writes_ = alias != nullptr && alias->isWrite();
      move(stack[first + i]);
    }
  }
  bool asks_for_device() const { return asks_for_device_; }
  Aliases& aliases() { return aliases_; }

 private:
  at::Tensor host(const at::Tensor& t) {
    if (writes_ && t.defined() && t.is_cuda()) mark_written(t.storage().mutable_data());
    return aliases_.on_host(t);
  }
  void move(c10::IValue& v) {
    if (v.isTensor()) {
      v = host(v.toTensor());
    } else if (v.isTensorList()) {
      std::vector<at::Tensor> all;
      for (const at::Tensor& t : v.toTensorVector()) all.push_back(host(t));
      v = c10::IValue(all);
    } else if (v.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> all;
      for (const std::optional<at::Tensor>& t : v.toOptionalTensorVector())
        all.push_back(t ? std::optional(host(*t)) : std::nullopt);
      v = c10::IValue(all);
    } else if (v.isDevice() && v.toDevice().is_cuda()) {
      asks_for_device_ = true;
      v = c10::Device(c10::kCPU);
    }
  }

  Aliases aliases_;
  bool writes_ = false, asks_for_device_ = false;
};

void to_device(c10::IValue& v, Aliases& aliases, bool new_ones_stay) {
  const auto device = [&](const at::Tensor& t) {
    return new_ones_stay && !aliases.holds(t) ? t : aliases.on_device(t);
  };
  if (v.isTensor()) {
    v = device(v.toTensor());
  } else if (v.isTensorList()) {
    std::vector<at::Tensor> all;
    for (const at::Tensor& t : v.toTensorVector()) all.push_back(device(t));
    v = c10::IValue(all);
  }
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  HostCall call(schema, *stack);
  // a copy to the CPU is the one operator whose result is not the device's
  const bool leaves = schema.name() == "aten::_to_copy" && !call.asks_for_device();
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  call.aliases().put_back();
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i)
    to_device((*stack)[i], call.aliases(), leaves);
}

// To, from and on the device: torch asks whichever of the two tensors is not the CPU's.
at::Tensor& copy_(at::Tensor& self, const at::Tensor& from, bool) {
  Aliases aliases;
  if (self.is_cuda()) mark_written(self.storage().mutable_data());
  at::Tensor to = aliases.on_host(self);
  const at::AutoDispatchBelowADInplaceOrView below;
  to.copy_(aliases.on_host(from));
  return self;
}

at::Scalar item(const at::Tensor& t) {
  Aliases aliases;
  return aliases.on_host(t).item();
}

}  // namespace
}  // namespace emulator

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty_strided", &emulator::empty_strided);
  m.impl("empty.memory_format", &emulator::empty);
  m.impl("copy_", &emulator::copy_);
  m.impl("_local_scalar_dense", &emulator::item);
}

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&emulator::fallback>());
}
