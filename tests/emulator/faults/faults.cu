// Kernels that each break one rule, and a sound one beside it, launched as kdops launches its own.
// test_faults.py says what the emulator must object to. Every launcher returns "" or the error.
#include <cuda_runtime.h>

#include <string>

namespace {

constexpr unsigned kAll = 0xffffffff;

__global__ void copy_kernel(const float* in, float* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = in[i];
}

// one element past what the launch says that there is
__global__ void read_past_kernel(const float* in, float* out, int n) {
  out[threadIdx.x] = in[threadIdx.x + n - 31];
}
__global__ void write_past_kernel(float* out, int n) { out[threadIdx.x + n - 31] = 1; }
__global__ void write_before_kernel(float* out) { out[static_cast<int>(threadIdx.x) - 1] = 1; }

__global__ void misaligned_kernel(const float* in, float* out) {
  const auto* pair = reinterpret_cast<const float2*>(in + 1);
  const float2 both = pair[threadIdx.x % 8];
  out[threadIdx.x] = both.x + both.y;
}

// `wait`: the barrier that makes it sound
__global__ void reverse_kernel(float* data, bool wait) {
  extern __shared__ float values[];
  const unsigned i = threadIdx.x, last = blockDim.x - 1;
  values[i] = data[i];
  if (wait) __syncthreads();
  data[i] = values[last - i];
}
// within one warp
__global__ void reverse_warp_kernel(float* data, bool wait) {
  __shared__ float values[32];
  values[threadIdx.x] = data[threadIdx.x];
  if (wait) __syncwarp();
  data[threadIdx.x] = values[31 - threadIdx.x];
}
// a flag in one byte that all warps write
__global__ void flag_kernel(float* data, bool atomic) {
  __shared__ unsigned char flag[4];
  __shared__ unsigned count;
  if (threadIdx.x == 0) flag[0] = 0, count = 0;
  __syncthreads();
  if (atomic)
    atomicAdd(&count, 1u);
  else if (threadIdx.x % 32 == 0)
    flag[0] = static_cast<unsigned char>(threadIdx.x + 1);
  __syncthreads();
  data[threadIdx.x] = static_cast<float>(flag[0] + count);
}

__global__ void shared_unwritten_kernel(float* out, int written) {
  extern __shared__ float values[];
  if (static_cast<int>(threadIdx.x) < written) values[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}
__global__ void shared_past_kernel(float* out, int n) {
  extern __shared__ float values[];
  values[threadIdx.x + n - 31] = 1;
  out[threadIdx.x] = 0;
}
// a local array of which one element is not written
__global__ void local_unwritten_kernel(float* out, int from, int element) {
  float values[8];
  for (int i = from; i < 8; ++i) values[i] = out[i];
  out[threadIdx.x] = values[element];
}

// lanes from `from` on take part
__global__ void shuffle_kernel(float* data, unsigned from) {
  float x = data[threadIdx.x];
  if (threadIdx.x >= from) x = __shfl_xor_sync(kAll << from, x, 1);
  data[threadIdx.x] = x;
}
// reads lane 0, which is not among those that take part
__global__ void shuffle_of_another_kernel(float* data, unsigned from) {
  float x = data[threadIdx.x];
  if (threadIdx.x >= from) x = __shfl_sync(kAll << from, x, 0);
  data[threadIdx.x] = x;
}
// half of the lanes name all of them
__global__ void shuffle_of_half_kernel(float* data) {
  float x = data[threadIdx.x];
  if (threadIdx.x < 16) x = __shfl_xor_sync(kAll, x, 1);
  data[threadIdx.x] = x;
}
// lanes that have left
__global__ void shuffle_after_exit_kernel(float* data) {
  if (threadIdx.x >= 16) return;
  data[threadIdx.x] = __shfl_xor_sync(kAll, data[threadIdx.x], 1);
}
// one lane of the warp goes another way round the barrier
__global__ void barrier_of_some_kernel(float* data) {
  if (threadIdx.x != 3) {
    __syncthreads();
    data[threadIdx.x] = 1;
  } else {
    data[3] = __shfl_sync(kAll, data[3], 3);
  }
}
// a warp that has left
__global__ void barrier_after_exit_kernel(float* data) {
  if (threadIdx.x >= 32) return;
  __syncthreads();
  data[threadIdx.x] = 1;
}
__global__ void endless_kernel(volatile float* data) {
  while (data[threadIdx.x] != 5) {
  }
}

__global__ void __launch_bounds__(64) bounded_kernel(float* data) { data[threadIdx.x] = 1; }

// more registers than the threads of a full block leave room for
__global__ void many_registers_kernel(float* data) {
  float values[80];
#pragma unroll
  for (int i = 0; i < 80; ++i) values[i] = data[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 80; ++i)
    data[i * 1024 + threadIdx.x] = values[i] * values[79 - i] + values[i];
}
// 40 KiB that are fixed
__global__ void fixed_shared_kernel(float* data) {
  __shared__ float values[10240];
  extern __shared__ float more[];
  values[threadIdx.x * 10] = data[threadIdx.x];
  more[threadIdx.x] = data[threadIdx.x];
  __syncthreads();
  data[threadIdx.x] = values[(31 - threadIdx.x) * 10] + more[31 - threadIdx.x];
}

// Exact results that test_faults.py knows: rounding, shuffles, votes.
__global__ void multiply_add_kernel(const float* a, const float* b, const float* c, float* out) {
  const unsigned i = threadIdx.x;
  out[i] = __fmaf_rd(a[i], b[i], c[i]);
  out[32 + i] = __fmaf_ru(a[i], b[i], c[i]);
  out[64 + i] = __fmaf_rz(a[i], b[i], c[i]);
  out[96 + i] = __fmaf_rn(a[i], b[i], c[i]);
}
__global__ void warp_functions_kernel(const float* in, float* out) {
  const float x = in[threadIdx.x];
  out[threadIdx.x] = __shfl_up_sync(kAll, x, 3, 16);
  out[32 + threadIdx.x] = __shfl_down_sync(kAll, x, 5);
  out[64 + threadIdx.x] = static_cast<float>(__popc(__ballot_sync(kAll, x > 4)));
  out[96 + threadIdx.x] = static_cast<float>(__syncthreads_count(x > 4));
}

std::string kept;

const char* error() {
  const cudaError_t code = cudaGetLastError();
  kept = code == cudaSuccess ? "" : cudaGetErrorString(code);
  return kept.c_str();
}

}  // namespace

extern "C" {

const char* copy(const float* in, float* out, int n, int blocks, int threads) {
  copy_kernel<<<blocks, threads>>>(in, out, n);
  return error();
}
const char* copy_in_grid(const float* in, float* out, unsigned y, unsigned z, unsigned threads_z) {
  copy_kernel<<<dim3(1, y, z), dim3(1, 1, threads_z)>>>(in, out, 1);
  return error();
}
const char* read_past(const float* in, float* out, int n) {
  read_past_kernel<<<1, 32>>>(in, out, n);
  return error();
}
const char* write_past(float* out, int n) {
  write_past_kernel<<<1, 32>>>(out, n);
  return error();
}
const char* write_before(float* out) {
  write_before_kernel<<<1, 32>>>(out);
  return error();
}
const char* misaligned(const float* in, float* out) {
  misaligned_kernel<<<1, 32>>>(in, out);
  return error();
}
const char* reverse(float* data, int threads, bool wait) {
  reverse_kernel<<<1, threads, threads * sizeof(float)>>>(data, wait);
  return error();
}
const char* reverse_warp(float* data, bool wait) {
  reverse_warp_kernel<<<1, 32>>>(data, wait);
  return error();
}
const char* flag(float* data, bool atomic) {
  flag_kernel<<<1, 64>>>(data, atomic);
  return error();
}
const char* shared_unwritten(float* out, int written) {
  shared_unwritten_kernel<<<1, 32, 32 * sizeof(float)>>>(out, written);
  return error();
}
const char* shared_past(float* out, int n) {
  shared_past_kernel<<<1, 32, 32 * sizeof(float)>>>(out, n);
  return error();
}
const char* local_unwritten(float* out, int from, int element) {
  local_unwritten_kernel<<<1, 32>>>(out, from, element);
  return error();
}
const char* shuffle(float* data, unsigned from) {
  shuffle_kernel<<<1, 32>>>(data, from);
  return error();
}
const char* shuffle_of_another(float* data, unsigned from) {
  shuffle_of_another_kernel<<<1, 32>>>(data, from);
  return error();
}
const char* shuffle_of_half(float* data) {
  shuffle_of_half_kernel<<<1, 32>>>(data);
  return error();
}
const char* shuffle_after_exit(float* data) {
  shuffle_after_exit_kernel<<<1, 32>>>(data);
  return error();
}
const char* barrier_of_some(float* data) {
  barrier_of_some_kernel<<<1, 32>>>(data);
  return error();
}
const char* barrier_after_exit(float* data) {
  barrier_after_exit_kernel<<<1, 64>>>(data);
  return error();
}
const char* endless(float* data) {
  endless_kernel<<<1, 32>>>(data);
  return error();
}
const char* bounded(float* data, int threads) {
  bounded_kernel<<<1, threads>>>(data);
  return error();
}
const char* many_registers(float* data, int threads) {
  many_registers_kernel<<<1, threads>>>(data);
  return error();
}
// `ask`: bytes for cudaFuncSetAttribute, none if negative
const char* fixed_shared(float* data, int dynamic, int ask) {
  if (ask >= 0 &&
      cudaFuncSetAttribute(fixed_shared_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, ask))
    return error();
  fixed_shared_kernel<<<1, 32, dynamic>>>(data);
  return error();
}
const char* multiply_add(const float* a, const float* b, const float* c, float* out) {
  multiply_add_kernel<<<1, 32>>>(a, b, c, out);
  return error();
}
const char* warp_functions(const float* in, float* out) {
  warp_functions_kernel<<<1, 32>>>(in, out);
  return error();
}

}  // extern "C"
