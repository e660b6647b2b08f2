// Launching: the device of a tensor, torch's current stream on it, and the check after a launch.
// The only file that knows torch's CUDA shims. They are weak: a CPU-only torch has none of them and
// still loads this library; a CUDA tensor cannot exist there, so that nobody misses them.
// Included by *_cuda.cu only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

extern "C" __attribute__((weak)) int32_t aoti_torch_get_current_cuda_stream(int32_t device,
                                                                            void** stream);

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

namespace kdops {

// While it lives, the tensor's device is current; stream() is torch's current stream there:
//   const OnDevice device(x);
//   kernel<<<grid, block, bytes, device.stream()>>>(...);
//   check_launch("gram");
class OnDevice {
 public:
  explicit OnDevice(const torch::stable::Tensor& tensor)
      : index_(tensor.get_device_index()), guard_(index_) {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr,
                    "kdops: this torch was built without CUDA");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t stream() const { return stream_; }

  // Streaming multiprocessors: what a launch has to fill.
  int64_t multiprocessors() const {
    int count = 0;
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, index_);
    return count > 0 ? count : 1;
  }
  // The most shared memory one block may ask for (see allow_shared_memory).
  int64_t shared_memory_per_block() const {
    int bytes = 0;
    cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index_);
    return bytes;
  }

 private:
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

// Right after every launch: an impossible geometry or a missing architecture is known at once.
// Does not wait for the kernel.
inline void check_launch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, op, ": CUDA launch failed: ", cudaGetErrorString(error));
}

// Dynamic shared memory beyond 48 KiB has to be asked for, once per kernel and device.
template <class Kernel>
void allow_shared_memory(const char* op, Kernel* kernel, int64_t bytes) {
  if (bytes <= 48 << 10) return;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  STD_TORCH_CHECK(error == cudaSuccess, op, ": ", bytes,
                  " bytes of shared memory per block: ", cudaGetErrorString(error));
}

// A one-dimensional grid for `blocks` blocks, which must fit into it.
inline dim3 grid_of(const char* op, int64_t blocks) {
  STD_TORCH_CHECK(blocks > 0 && blocks <= INT32_MAX, op, ": ", blocks,
                  " thread blocks do not fit into one launch");
  return dim3(static_cast<unsigned>(blocks));
}

}  // namespace kdops
