// Full SVD and svdvals with a small side of up to 128 (any long side): one block per matrix.
// The method and the memory are described in block_context.cuh; launched by full_cuda.cu for
// every matrix that small_kernels.cuh does not take. One launch, converged on the device.
#pragma once

#include "svd/full/gpu/jacobi.cuh"
#include "svd/full/gpu/long_factor.cuh"

namespace kdops::svd::gpu {

// Fills the missing columns of W (value not above the floor) with unit vectors orthogonal to all
// the others: a coordinate axis, the one farthest from them, made orthogonal twice.
template <class T>
KDOPS_DEVICE void complete_columns(const BlockContext<T>& shared) {
  const BlockContext<T> b = shared;
  const int thread = static_cast<int>(threadIdx.x), warps = b.threads / kWarp;
  T *candidate = b.scratch, *outside = candidate + b.p, *parts = outside + b.p;
  const auto present = [&](int c) { return b.value[c] * b.value[c] > b.limits.floor_squared; };
  if (!block_any(thread < b.p && !present(thread))) return;
#pragma unroll 1
  for (int i = thread; i < b.p; i += b.threads) {
    T inside = T(0);
#pragma unroll 1
    for (int c = 0; c < b.p; ++c)
      if (present(c)) inside = fma(b.w[c * b.ld + i], b.w[c * b.ld + i], inside);
    outside[i] = T(1) - inside;
  }
  __syncthreads();
#pragma unroll 1
  for (int target = 0; target < b.p; ++target) {
    if (present(target)) continue;
    Indexed<T> best{T(-2), 0};
#pragma unroll 1
    for (int i = lane_id(); i < b.p; i += kWarp)
      if (outside[i] > best.value) best = {outside[i], i};
    const int axis = warp_argmax(best.value, best.index).index;
#pragma unroll 1
    for (int i = thread; i < b.p; i += b.threads) candidate[i] = i == axis ? T(1) : T(0);
    __syncthreads();
#pragma unroll 1
    for (int pass = 0; pass < 2; ++pass) {
#pragma unroll 1
      for (int i = lane_id(); i < b.p; i += kWarp) parts[warp_id() * b.p + i] = T(0);
#pragma unroll 1
      for (int c = warp_id(); c < b.p; c += warps) {
        if (!present(c) && c >= target) continue;  // missing ones before target are filled by now
        const T* column = b.w + c * b.ld;
        T dot = T(0);
#pragma unroll 1
        for (int i = lane_id(); i < b.p; i += kWarp) dot = fma(column[i], candidate[i], dot);
        dot = warp_sum(dot);
#pragma unroll 1
        for (int i = lane_id(); i < b.p; i += kWarp) parts[warp_id() * b.p + i] += dot * column[i];
      }
      __syncthreads();
#pragma unroll 1
      for (int i = thread; i < b.p; i += b.threads)
#pragma unroll 1
        for (int w = 0; w < warps; ++w) candidate[i] -= parts[w * b.p + i];
      __syncthreads();
    }
    T square = T(0);
#pragma unroll 1
    for (int i = lane_id(); i < b.p; i += kWarp) square = fma(candidate[i], candidate[i], square);
    const T scale = T(1) / sqrt(warp_sum(square));
#pragma unroll 1
    for (int i = thread; i < b.p; i += b.threads) {
      const T entry = candidate[i] * scale;
      b.w[target * b.ld + i] = entry;
      outside[i] -= entry * entry;
    }
    __syncthreads();
  }
}

// Jacobi on W and J as they are; kSide: p is not larger; kMayHaveJ: false if there is never a J. Each
// way to address W is all of Jacobi once more to compile, so double precision, whose arithmetic takes
// longer than addresses, has a single one for what may lie in either memory.
template <int kSide, bool kMayHaveJ, class T>
KDOPS_DEVICE void jacobi(const BlockContext<T>& shared) {
  const BlockContext<T> b = shared;
  const int end = padded_columns(b.p) * b.ld;
  for (int i = b.p * b.ld + static_cast<int>(threadIdx.x); i < end; i += b.threads) {
    b.w[i] = T(0);
    if (b.j != nullptr) b.j[i] = T(0);
  }
  __syncthreads();
  constexpr int kRowsPerLane = (kSide + kWarp - 1) / kWarp;
  constexpr bool kShared = kSide <= kAlwaysShared<T>;
  if constexpr (kShared || sizeof(T) == 4) {
    if (kShared || b.in_shared) {
      KDOPS_DYNAMIC_SHARED(T, pool);
      const auto in_pool = [&](const T* x) { return pool + (x - b.scratch); };
      T* j = b.j == nullptr ? nullptr : in_pool(b.j);
      jacobi_sweeps<kRowsPerLane, kMayHaveJ>(b, in_pool(b.w), j, in_pool(b.value));
    }
  }
  if constexpr (!kShared) {
    if (sizeof(T) == 8 || !b.in_shared)
      jacobi_sweeps<kRowsPerLane, kMayHaveJ>(b, b.w, b.j, b.value);
  }
}

// b.rank from b.value.
template <class T>
KDOPS_DEVICE void rank_values(const BlockContext<T>& b) {
  for (int c = static_cast<int>(threadIdx.x); c < b.p; c += b.threads)
    b.rank[c] = rank_of(b.value, b.p, c);
  __syncthreads();
}

// Norms of the columns of W and their places in descending order; W's columns become unit vectors.
template <class T>
KDOPS_DEVICE void sort_and_normalise(const BlockContext<T>& shared) {
  const BlockContext<T> b = shared;
  for (int c = warp_id(); c < b.p; c += b.threads / kWarp) {
    T* column = b.w + c * b.ld;
    T square = T(0);
    for (int i = lane_id(); i < b.p; i += kWarp) square = fma(column[i], column[i], square);
    const T norm = sqrt(warp_sum(square));
    const bool missing = !(norm * norm > b.limits.floor_squared);
    const T scale = missing ? T(0) : T(1) / norm;
    for (int i = lane_id(); i < b.p; i += kWarp) column[i] *= scale;
    if (lane_id() == 0) b.value[c] = norm, b.sign[c] = T(1);
  }
  __syncthreads();
  rank_values(b);
}

// The outputs of a full SVD once W and J have converged.
template <int kSide, class T>
KDOPS_DEVICE void write_svd(const SvdArguments<T>& args, const BlockContext<T>& b) {
  const int64_t index = blockIdx.x;
  T* short_out = args.wide() ? args.U : args.Vh;
  if (short_out != nullptr) {
    complete_columns(b);
    if (args.canonical && !b.wide) {
      for (int c = warp_id(); c < b.p; c += b.threads / kWarp) {
        const T sign = canonical_sign(b.w + c * b.ld, b.p, 1);
        if (lane_id() == 0) b.sign[c] = sign;
      }
      __syncthreads();
    }
  }
  for (int c = static_cast<int>(threadIdx.x); c < b.p; c += b.threads)
    args.S[index * b.p + b.rank[c]] = b.value[c] / kBoost<T> * b.scale.down;
  if (b.long_out != nullptr) write_long<kSide>(b);
  if (b.wide && b.long_out != nullptr && args.canonical) {
    __syncthreads();
    for (int c = warp_id(); c < b.p; c += b.threads / kWarp) {
      const T sign = make_canonical(b.long_out + b.rank[c] * b.length, b.length);
      if (lane_id() == 0) b.sign[c] = sign;
    }
    __syncthreads();
  }
  if (short_out == nullptr) return;
  short_out += index * int64_t(b.p) * b.p;
  for (int i = warp_id(); i < b.p; i += b.threads / kWarp) {
    for (int k = lane_id(); k < b.p; k += kWarp) {  // along the rows of the output
      const int row = b.wide ? i : k, c = b.wide ? k : i;
      const int64_t at = b.wide ? int64_t(row) * b.p + b.rank[c] : int64_t(b.rank[c]) * b.p + row;
      short_out[at] = b.sign[c] * b.w[c * b.ld + row];
    }
  }
}

// Places the context's arrays in shared memory and in the workspace, and makes J the identity.
template <class T>
KDOPS_DEVICE void set_up(const SvdArguments<T>& args, const BlockPlan& plan, T* pool, T* workspace,
                         T largest, BlockContext<T>& b) {
  const int p = args.p(), columns = padded_columns(p), matrix = columns * plan.ld;
  const bool with_long = args.symmetric || (args.wide() ? args.Vh : args.U) != nullptr;
  const int64_t index = blockIdx.x;
  workspace += index * ((!plan.w_shared + !plan.j_shared) * matrix);
  b.p = p, b.ld = plan.ld, b.threads = plan.threads;
  b.length = args.length(), b.wide = args.wide(), b.long_out = nullptr;
  if (with_long && !args.symmetric)
    b.long_out = b.wide ? args.Vh + index * p * args.n : args.U + index * args.m * p;
  b.scratch = pool;
  b.value = b.scratch + plan.scratch;
  b.sign = b.value + columns;
  b.rank = reinterpret_cast<int*>(b.sign + columns);
  T* next = b.sign + 2 * columns;
  b.w = plan.w_shared ? next : workspace;
  (plan.w_shared ? next : workspace) += matrix;
  b.j = !with_long ? nullptr : (plan.j_shared ? next : workspace);
  b.in_shared = plan.w_shared && plan.j_shared;
  b.scale = power_of_two_scale(largest);
  b.limits = jacobi_limits(p, largest * b.scale.up * kBoost<T>);
}

// The start of a kernel: the context, J the identity. False, and results of NaN, for a matrix with
// NaN or Inf. Ends without a barrier: J is not complete yet.
template <bool kSymmetric, class T>
KDOPS_DEVICE bool begin_block(const SvdArguments<T>& args, const BlockPlan& plan, T* pool,
                              T* workspace, BlockContext<T>& shared) {
  const int64_t index = blockIdx.x, size = args.m * args.n;
  const int p = args.p();
  const T largest = scan_entries(args.A + index * size, size, pool, [&](int64_t i) {
    return kSymmetric && static_cast<int>(i) % p > static_cast<int>(i) / p;
  });
  if (largest < T(0)) {
    fill_nan(args.S, index, p);
    fill_nan(args.U, index, args.m * p);
    fill_nan(args.Vh, index, args.n * p);
    return false;
  }
  if (threadIdx.x == 0) set_up(args, plan, pool, workspace, largest, shared);
  __syncthreads();
  const BlockContext<T>& b = shared;
  for (int c = warp_id(); b.j != nullptr && c < b.p; c += b.threads / kWarp)
    for (int i = lane_id(); i < b.p; i += kWarp) b.j[c * b.ld + i] = c == i ? T(1) : T(0);
  return true;
}

// Grid: one block per matrix. kSide: block_side of the launch. workspace: W and J of each matrix
// where they are not in shared memory.
template <class T, int kSide>
__global__ void __launch_bounds__(kBlockThreads, kSide <= 32 && sizeof(T) == 4 ? 2 : 1)
    svd_block_kernel(SvdArguments<T> args, BlockPlan plan, T* workspace) {
  KDOPS_DYNAMIC_SHARED(T, pool);
  KDOPS_SHARED(BlockContext<T>, shared, [1]);
  if (args.only_refused && !was_refused(args)) return;
  if (!begin_block<false>(args, plan, pool, workspace, shared[0])) return;
  const BlockContext<T>& b = shared[0];
  qr<kSide>(b, args);
  jacobi<kSide, true>(b);
  sort_and_normalise(b);
  write_svd<kSide>(args, b);
}

}  // namespace kdops::svd::gpu
