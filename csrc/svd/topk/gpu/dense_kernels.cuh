// The accurate route of svd_topk, for matrices whose s_k is too small for a Gram matrix: all
// small-side vectors by the block SVD (QR, then one-sided Jacobi on the triangle), of which the
// first k go the rest of the way as in topk_kernels.cuh; the others are saved for the gradient.
// Launched by topk_cuda.cu after svd_topk_kernel, always, on the same stream: the host never learns
// which matrices need it, and a block without work leaves after one load.
#pragma once

#include "svd/full/gpu/block_kernels.cuh"
#include "svd/topk/gpu/topk_kernels.cuh"

namespace kdops::svd::gpu {

static_assert(kBlockThreads == kTopkThreads);

// The two phases use the same shared memory, one after the other.
struct TopkDensePlan {
  BlockPlan block;
  TopkPlan rows;
};

// All p small-side vectors and values of the matrix to `saved`; b lies in shared memory.
template <class T>
KDOPS_DEVICE void dense_vectors(const TopkArguments<T>& args, const BlockPlan& plan, T* pool,
                                T* workspace, T largest, T* saved, BlockContext<T>& b) {
  SvdArguments<T> svd{args};
  svd.A = args.A;
  if (threadIdx.x == 0) set_up(svd, plan, pool, workspace, largest, b);
  __syncthreads();
  if (b.p <= 32)
    qr<32>(b, svd);
  else if (b.p <= 64)
    qr<64>(b, svd);
  else
    qr<128>(b, svd);
  // the longest to compile: two sizes are enough for what few matrices need
  if (b.p <= 64)
    jacobi<64, false>(b);
  else
    jacobi<128, false>(b);
  sort_and_normalise(b);
  complete_columns(b);
  const TopkSaved place{b.p, args.k};
  const int p = b.p;
  T *values = saved + place.dense_values_at(), *vectors = saved + place.dense_vectors_at();
#pragma unroll 1
  for (int at = static_cast<int>(threadIdx.x); at < p * p; at += kTopkThreads)
    vectors[b.rank[at / p] * p + at % p] = b.w[at / p * b.ld + at % p];
#pragma unroll 1
  for (int c = static_cast<int>(threadIdx.x); c < p; c += kTopkThreads)
    values[b.rank[c]] = b.value[c] / kBoost<T>;
  __syncthreads();
}

// Grid: one block per matrix. workspace: W of each matrix where it is not in shared memory.
template <class T>
__global__ void __launch_bounds__(kTopkThreads, 1)
    svd_topk_dense_kernel(TopkArguments<T> args, TopkDensePlan plan, T* workspace) {
  KDOPS_DYNAMIC_SHARED(T, shared);
  KDOPS_SHARED(BlockContext<T>, block, [1]);
  const int64_t index = blockIdx.x;
  const int p = args.p(), k = args.k;
  const TopkSaved place{p, k};
  T* saved = args.saved + index * place.size();
  if (!TopkSaved::took(saved, TopkRoute::dense)) return;
  const T largest = topk_scan(args.A + index * args.m * args.n, args.m * args.n, shared);
  dense_vectors(args, plan.block, shared, workspace, largest, saved, block[0]);
  const TopkContext<T> t(shared, p, k);
#pragma unroll 1
  for (int at = static_cast<int>(threadIdx.x); at < p * k; at += kTopkThreads)
    t.x[at % p * t.kx + at / p] = saved[place.dense_vectors_at() + at];
  __syncthreads();
  finish_topk(t, args, plan.rows, largest);
}

}  // namespace kdops::svd::gpu
