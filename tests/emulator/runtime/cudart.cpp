// What kdops' objects need of libcudart. The build fails for a function that is not here.
#include <cuda_runtime_api.h>

#include "runtime/launch.h"

namespace {

using namespace emulator;

struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};

thread_local std::vector<Configuration> configurations;
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_text;

cudaError_t remember(int code, const std::string& text) {
  if (code == cudaSuccess) return cudaSuccess;
  last_text = text;
  return last_error = static_cast<cudaError_t>(code);
}

Kernel* find_kernel(const void* host) {
  const auto it = kernels().find(host);
  if (it == kernels().end()) {
    remember(cudaErrorInvalidDeviceFunction, "invalid device function");
    return nullptr;
  }
  return &it->second;
}

cudaError_t launch_kernel(Kernel& kernel, dim3 grid, dim3 block, void** arguments, size_t shared) {
  const Geometry g = {{grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared};
  const Refusal r = launch(kernel, g, arguments);
  return remember(r.code, r.text);
}

}  // namespace

extern "C" {

// ---- what nvcc's generated code calls --------------------------------------------------------------

void** __cudaRegisterFatBinary(void* wrapper) {
  return reinterpret_cast<void**>(new Image{read_fat_binary(wrapper), nullptr});
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

void __cudaRegisterFunction(void** image, const char* host, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  auto* own = reinterpret_cast<Image*>(image);
  KernelLimits limits;
  limits.registers = own->binary.registers.at(name);  // the check of a launch must not pass unseen
  kernels()[host] = {name, own, limits};
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  configurations.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (configurations.empty()) return remember(cudaErrorMissingConfiguration, "no configuration");
  const Configuration c = configurations.back();
  configurations.pop_back();
  *grid = c.grid, *block = c.block, *shared = c.shared;
  *static_cast<cudaStream_t*>(stream) = c.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  Kernel* found = find_kernel(host);
  *kernel = reinterpret_cast<cudaKernel_t>(found);
  return found == nullptr ? cudaErrorInvalidDeviceFunction : cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t) {
  return launch_kernel(*reinterpret_cast<Kernel*>(kernel), grid, block, arguments, shared);
}
cudaError_t cudaLaunchKernel(const void* host, dim3 grid, dim3 block, void** arguments,
                             size_t shared, cudaStream_t) {
  Kernel* kernel = find_kernel(host);
  if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
  return launch_kernel(*kernel, grid, block, arguments, shared);
}

// ---- what kdops calls --------------------------------------------------------------------------

cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute which, int value) {
  const std::lock_guard lock(runtime_lock());
  Kernel* kernel = find_kernel(host);
  if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
  if (which != cudaFuncAttributeMaxDynamicSharedMemorySize)
    return remember(cudaErrorInvalidValue, "emulator: unknown attribute of a kernel");
  const int limit = DeviceModel::current().shared_optin;
  const auto fixed = static_cast<int>(program_of(*kernel).static_shared);
  if (value < 0 || value + fixed > limit)
    return remember(cudaErrorInvalidValue, "invalid argument: " + std::to_string(value + fixed) +
                                               " bytes of shared memory, the device has " +
                                               std::to_string(limit));
  kernel->limits.dynamic_asked = value;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  const DeviceModel& device = DeviceModel::current();
  if (which == cudaDevAttrMultiProcessorCount)
    *value = device.multiprocessors;
  else if (which == cudaDevAttrMaxSharedMemoryPerBlockOptin)
    *value = device.shared_optin;
  else
    return remember(cudaErrorInvalidValue, "emulator: unknown attribute of the device");
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return last_error; }
const char* cudaGetErrorString(cudaError_t code) {
  return code == cudaSuccess ? "no error" : last_text.c_str();
}

}  // extern "C"
