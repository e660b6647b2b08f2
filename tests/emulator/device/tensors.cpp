#include "device/tensors.h"

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>

#include <cstring>

#include "memory/arena.h"

namespace emulator {
namespace {

class Allocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* base = emulator::allocate(bytes);
    return c10::DataPtr(base, base, release, kDevice);
  }
  c10::DeleterFnPtr raw_deleter() const override { return release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(contents(to), contents(from), bytes);
    mark_written(to);
  }
};

Allocator* allocator() {
  static Allocator* one = [] {
    auto* made = new Allocator;
    c10::SetAllocator(c10::kCUDA, made);
    return made;
  }();
  return one;
}
[[maybe_unused]] const Allocator* const registered = allocator();

// Device memory that holds what the host's does. torch gives zero tensors without any memory.
at::DataPtr copy_of(const c10::Storage& host) {
  const size_t bytes = host.nbytes();
  auto data = allocator()->allocate(bytes);
  if (bytes == 0) return data;
  if (host.data() != nullptr)
    std::memcpy(contents(data.get()), host.data(), bytes);
  else
    std::memset(contents(data.get()), 0, bytes);
  mark_written(data.get());
  return data;
}

bool same(const c10::Storage& a, const c10::Storage& b) {
  return a.unsafeGetStorageImpl() == b.unsafeGetStorageImpl();
}

c10::Storage storage_of(size_t bytes, at::DataPtr data, c10::Allocator* owner) {
  return c10::Storage(c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), bytes, std::move(data), owner, /*resizable=*/true));
}

}  // namespace

c10::Storage new_storage(size_t bytes) {
  return storage_of(bytes, allocator()->allocate(bytes), allocator());
}

at::Tensor tensor_like(c10::Storage storage, c10::DispatchKey key, const at::Tensor& like) {
  auto t = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key),
                                                    like.dtype());
  auto* impl = t.unsafeGetTensorImpl();
  impl->set_storage_offset(like.storage_offset());
  impl->set_sizes_and_strides(like.sizes(), like.strides());
  if (like.is_conj()) impl->_set_conj(true);
  if (like.is_neg()) impl->_set_neg(true);
  if (like.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
  return t;
}

const c10::Storage& Aliases::host_storage(const c10::Storage& device) {
  for (const StoragePair& s : storages_)
    if (same(s.device, device)) return s.host;
  // a view that outlives the call keeps the device's storage
  auto* keep = new c10::Storage(device);
  at::DataPtr data(
      contents(device.data()), keep, [](void* p) { delete static_cast<c10::Storage*>(p); },
      at::kCPU);
  storages_.push_back(
      {device, storage_of(device.nbytes(), std::move(data), c10::GetAllocator(at::kCPU))});
  return storages_.back().host;
}

const c10::Storage* Aliases::device_storage(const c10::Storage& host) const {
  for (const StoragePair& s : storages_)
    if (same(s.host, host)) return &s.device;
  return nullptr;
}

at::Tensor Aliases::on_host(const at::Tensor& t) {
  if (!t.defined() || !t.is_cuda()) return t;
  for (const TensorPair& known : tensors_)
    if (known.device.is_same(t)) return known.host;
  tensors_.push_back({t, tensor_like(host_storage(t.storage()), c10::DispatchKey::CPU, t)});
  return tensors_.back().host;
}

at::Tensor Aliases::on_device(const at::Tensor& t) {
  if (!t.defined() || !t.device().is_cpu() || !t.has_storage()) return t;
  for (const TensorPair& known : tensors_)
    if (known.host.is_same(t)) return known.device;
  if (const c10::Storage* device = device_storage(t.storage()))
    return tensor_like(*device, c10::DispatchKey::CUDA, t);
  // copied, not adopted: others may hold the host's memory too
  storages_.push_back(
      {storage_of(t.storage().nbytes(), copy_of(t.storage()), allocator()), t.storage()});
  return tensor_like(storages_.back().device, c10::DispatchKey::CUDA, t);
}

bool Aliases::holds(const at::Tensor& host) const {
  for (const TensorPair& known : tensors_)
    if (known.host.is_same(host)) return true;
  return false;
}

void Aliases::put_back() {
  for (StoragePair& s : storages_) {
    if (contents(s.device.data()) == s.host.data() && s.device.nbytes() == s.host.nbytes())
      continue;
    if (s.device.data() != nullptr && s.host.nbytes() == 0) continue;  // shrunk to nothing
    const size_t bytes = s.host.nbytes();
    s.device.set_data_ptr_noswap(copy_of(s.host));
    s.device.set_nbytes(bytes);
  }
  for (TensorPair& t : tensors_) {
    if (t.device.sizes() == t.host.sizes() && t.device.strides() == t.host.strides() &&
        t.device.storage_offset() == t.host.storage_offset())
      continue;
    auto* impl = t.device.unsafeGetTensorImpl();
    if (const c10::Storage* device = device_storage(t.host.storage()))
      impl->set_storage_keep_dtype(*device);
    impl->set_storage_offset(t.host.storage_offset());
    impl->set_sizes_and_strides(t.host.sizes(), t.host.strides());
  }
}

}  // namespace emulator
