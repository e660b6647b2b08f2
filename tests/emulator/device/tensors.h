// Tensors of the emulated device: their memory is the arena's, their kernels are the CPU's.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <vector>

namespace emulator {

inline const c10::Device kDevice(c10::kCUDA, 0);

c10::Storage new_storage(size_t bytes);
// A tensor of `storage` under `key` with the sizes, strides, offset, dtype and flags of `like`.
at::Tensor tensor_like(c10::Storage storage, c10::DispatchKey key, const at::Tensor& like);

// The arguments of one operator as the CPU sees them: aliases of the same memory. Views stay views
// of one storage, so that an operator in place or with out= writes where it should.
class Aliases {
 public:
  at::Tensor on_host(const at::Tensor& tensor);
  // Of a result: the argument itself, a view of its storage, or a copy of a new tensor.
  at::Tensor on_device(const at::Tensor& tensor);
  bool holds(const at::Tensor& host) const;
  // What the operator did to its arguments themselves: sizes, and memory of another size.
  void put_back();

 private:
  struct StoragePair {
    c10::Storage device, host;
  };
  struct TensorPair {
    at::Tensor device, host;
  };
  const c10::Storage& host_storage(const c10::Storage& device);
  const c10::Storage* device_storage(const c10::Storage& host) const;

  std::vector<StoragePair> storages_;
  std::vector<TensorPair> tensors_;
};

}  // namespace emulator
