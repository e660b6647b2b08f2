// Full SVD and svdvals of tall and wide matrices with a small side of up to 32, through the Gram
// matrix G = B^T B: B is read twice, and of the method only the eigenproblem of G is not a product.
// One-sided Jacobi makes the columns of G J orthogonal; G is symmetric and positive, so that they are
// its eigenvectors, as long as its eigenvalues. A matrix that G does not resolve (gram_rule.h) is
// marked, and svd_block_kernel, launched behind on the same stream, takes it. Both are always
// launched: the host does not learn who was marked. Launched by full_cuda.cu.
#pragma once

#include "svd/full/gpu/small_kernels.cuh"
#include "svd/full/gpu/tall_rows.cuh"
#include "svd/shared/gram_rule.h"

namespace kdops::svd::gpu {

template <class T, int kSide>
inline constexpr int kGramNumbers = TallShape<T, kSide>::kChunk + TallShape<T, kSide>::kPartial;

// Of the lengths a and b of columns, two in each of kLanes lanes, p of them not padding. On the way of
// G J to the eigenvectors, J orthogonal, `most` and the sum of inverses only grow, `least` only falls.
template <int kLanes, class T>
KDOPS_DEVICE GramValues<T> measure_gram(T a, T b, int p) {
  const T most = warp_max<kLanes>(max(a, b));
  const int present = warp_sum<kLanes>(int(a > T(0)) + int(b > T(0)));
  const auto length = [&](T x) { return x > T(0) ? x : most; };
  const auto inverse = [](T x) { return x > T(0) ? T(1) / x : T(0); };
  const T least = warp_min<kLanes>(min(length(a), length(b)));
  return {most, present < p ? T(0) : least, warp_sum<kLanes>(inverse(a) + inverse(b))};
}

// The columns of G J become orthogonal. False as soon as their lengths tell that G will be refused,
// mostly after one sweep of seven.
template <class T, int kSide>
KDOPS_DEVICE bool diagonalise(LaneColumns<T, kSide>& own, const JacobiLimits<T>& limits, int p,
                              bool vectors) {
  constexpr int kHalf = kSide / 2;  // lanes that hold halves of all columns, and of rows
  bool again = true, resolved = true;
  trade_halves(own.b, kHalf);
#pragma unroll 1
  for (int sweep = 0; sweep < kMaxSweeps && again && resolved; ++sweep) {
    again = paired_sweep<T, kSide, false>(own, false, limits);
    const T a = sqrt(whole_product(own.b, 0, 0)), b = sqrt(whole_product(own.b, kHalf, kHalf));
    resolved = gram_resolves(measure_gram<kHalf>(a, b, p), p, vectors);
  }
  trade_halves(own.b, kHalf);
  return resolved;
}

// By one warp, a column of `gram` per lane: values, short vectors (those of a wide matrix without
// their signs), and in `right` (kSide x kSide) the short vectors over their values, by columns. False,
// and nothing written, if the matrix is refused.
template <class T, int kSide>
KDOPS_DEVICE bool decompose_gram(const SvdArguments<T>& args, const T* gram, T* right) {
  const int lane = group_lane<kSide>(), p = args.p();
  const int64_t index = blockIdx.x;
  const bool vectors = args.Vh != nullptr;
  const T trace = warp_sum<kSide>(gram[lane * (kSide + 2)]);
  if (!gram_in_range(trace)) return false;
  const Scale<T> scale = power_of_two_scale(trace);
  LaneColumns<T, kSide> own;
#pragma unroll
  for (int i = 0; i < kSide; ++i) own.b[i] = gram[lane * (kSide + 1) + i] * scale.up * kBoost<T>;
  if (!diagonalise(own, jacobi_limits(p, trace * scale.up * kBoost<T>), p, vectors)) return false;

  const T value = sqrt(squared_norm(own.b));
  const int rank = descending_rank<T, kSide>(value, kSide);  // columns beyond p are zero: the last
  const bool inside = rank < p;
  const T root = sqrt(value / kBoost<T> * scale.down);
  if (inside && lane_id() < kSide) args.S[index * p + rank] = root;
  if (!vectors) return true;
  const T unit = inside ? T(1) / value : T(0), shrink = inside ? T(1) / root : T(0);
#pragma unroll
  for (int i = 0; i < kSide; ++i) own.b[i] *= unit;
  const T sign = args.canonical && !args.wide() ? lane_sign(own.b, p) : T(1);
  if (lane_id() < kSide) {  // of two groups of 16, which hold the same
#pragma unroll
    for (int i = 0; i < kSide; ++i) right[i * kSide + rank] = own.b[i] * (sign * shrink);
    if (inside && !args.wide())
      store_column(args.Vh + (index * p + rank) * p, 1, own.b, sign, p);
    else if (inside && args.U != nullptr)
      store_column(args.U + index * p * p + rank, p, own.b, sign, p);
  }
  return true;
}

// The long vectors of a wide matrix decide the signs; the short ones follow.
template <class T>
KDOPS_DEVICE void sign_wide(const SvdArguments<T>& args) {
  const int64_t index = blockIdx.x;
  const int p = args.p();
  __syncthreads();
  for (int c = warp_id(); c < p; c += kGramWarps) {
    const T sign = make_canonical(args.Vh + (index * p + c) * args.n, args.n);
    T* u = args.U + index * p * p + c;
    for (int i = lane_id(); args.U != nullptr && sign < T(0) && i < p; i += kWarp)
      u[i * p] = -u[i * p];
  }
}

// Grid: one block per matrix. multiprocessors: of the device. Blocks that share one of them are about
// as many apart; so their one busy warp is each time another, and on another scheduler.
template <class T, int kSide>
__global__ void __launch_bounds__(kGramThreads, sizeof(T) == 4 ? 4 : 2)
    svd_gram_kernel(SvdArguments<T> args, int multiprocessors) {
  KDOPS_DYNAMIC_SHARED(T, chunk);
  T* right = chunk + TallShape<T, kSide>::kChunk;
  const TallRows<T, kSide> rows(args);
  gram_of_rows(rows, chunk, right, chunk);
  const int worker = static_cast<int>(blockIdx.x) / multiprocessors % kGramWarps;
  const bool refused = warp_id() == worker && !decompose_gram<T, kSide>(args, chunk, right);
  if (block_any(refused)) {
    if (threadIdx.x == 0) mark_refused(args);
    return;
  }
  T* out = args.wide() ? args.Vh : args.U;
  if (out == nullptr) return;
  out += blockIdx.x * args.length() * args.p();
  product_of_rows(rows, right, chunk, out, args.wide());
  if (args.wide() && args.canonical) sign_wide(args);
}

}  // namespace kdops::svd::gpu
