// Kernels whose time is known from their text, for the clock (cost/clock.h). test_cost.py says what
// each must take.
#include <cuda_runtime.h>

#include <string>

namespace {

constexpr int kSteps = 256;

std::string text;
const char* outcome() {
  const cudaError_t error = cudaGetLastError();
  text = error == cudaSuccess ? "" : cudaGetErrorString(error);
  return text.c_str();
}

// every step waits for the one before
__global__ void chain_kernel(float* x, float a) {
  float v = x[threadIdx.x];
#pragma unroll
  for (int i = 0; i < kSteps; ++i) v = fmaf(v, a, a);
  x[threadIdx.x] = v;
}
// eight chains at once
__global__ void independent_kernel(float* x, float a) {
  float v[8];
  for (int k = 0; k < 8; ++k) v[k] = x[threadIdx.x] + static_cast<float>(k);
#pragma unroll
  for (int i = 0; i < kSteps; ++i) v[i % 8] = fmaf(v[i % 8], a, a);
  float sum = 0;
  for (int k = 0; k < 8; ++k) sum += v[k];
  x[threadIdx.x] = sum;
}
// lanes read words that lie `stride` apart
__global__ void bank_kernel(float* x, int stride) {
  __shared__ float s[32 * 32];
  for (int i = static_cast<int>(threadIdx.x); i < 32 * 32; i += 32) s[i] = x[i];
  __syncthreads();
  const volatile float* mine = s + static_cast<int>(threadIdx.x) * stride;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 32; ++i) sum += *mine;
  x[threadIdx.x] = sum;
}
__global__ void barrier_kernel(float* x, int count) {
  for (int i = 0; i < count; ++i) __syncthreads();
  x[threadIdx.x] = 1;
}

}  // namespace

extern "C" {

const char* chain(float* x) {
  chain_kernel<<<1, 32>>>(x, .5f);
  return outcome();
}
const char* independent(float* x, int threads) {
  independent_kernel<<<1, threads>>>(x, .5f);
  return outcome();
}
const char* banks(float* x, int stride) {
  bank_kernel<<<1, 32>>>(x, stride);
  return outcome();
}
const char* barriers(float* x, int count) {
  barrier_kernel<<<1, 256>>>(x, count);
  return outcome();
}
const char* many_blocks(float* x, int blocks) {
  chain_kernel<<<blocks, 32>>>(x, .5f);
  return outcome();
}

}  // extern "C"
