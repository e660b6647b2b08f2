// svd_topk and its gradient on CUDA: geometry from topk_launch.h, no synchronisation. The forward
// is two launches, of which the second does nothing for most matrices (dense_kernels.cuh), the
// gradient one. Above a small side of 128: largest entries, Gram matrices, Krylov bases, triples
// (large_kernels.cuh), and one for the gradient. `lorentz` of the forward only travels to the gradient.
#include "common/torch/stream.h"
// stream.h first: it declares torch's CUDA shims weak
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "svd/matrix_batch.h"
#include "svd/topk/topk_launch.h"

namespace kdops::svd {
namespace {

// A block per matrix for what plan_... of topk_launch.h has found; before: the kernel's arguments
// before its workspace, which lives until the launch, in stream order.
template <class T, class Kernel, class Geometry, class... Arguments>
void launch(const char* op, const OnDevice& device, const MatrixBatch& batch, Kernel* kernel,
            const Geometry& geometry, const Arguments&... before) {
  const int64_t matrices = geometry.workspace > 0 ? batch.count : 0;
  const Tensor workspace = empty_for(batch.A, {matrices, std::max<int64_t>(geometry.workspace, 1)});
  allow_shared_memory(op, kernel, static_cast<int64_t>(geometry.shared_bytes));
  kernel<<<grid_of(op, batch.count), gpu::kTopkThreads, geometry.shared_bytes, device.stream()>>>(
      before..., pointer<T>(workspace));
  check_launch(op);
}

template <class T>
void large_forward(const OnDevice& device, const MatrixBatch& batch,
                   const gpu::TopkArguments<T>& args) {
  const char* op = "svd_topk";
  const int64_t p = batch.small_side();
  const Tensor parts = empty_for(batch.A, {batch.count, gpu::kScanParts});
  T* largest = pointer<T>(parts);
  gpu::large_scan_kernel<T>
      <<<grid_of(op, batch.count * gpu::kScanParts), gpu::kTopkThreads, 0, device.stream()>>>(
          args.A, batch.m * batch.n, largest);
  check_launch(op);
  const int64_t tiles = gpu::large_gram_tiles(static_cast<int>(p));
  gpu::large_gram_kernel<T>
      <<<grid_of(op, batch.count * tiles), gpu::GramShape<T>::kThreads, 0, device.stream()>>>(
          args, largest);
  check_launch(op);
  launch<T>(op, device, batch, &gpu::large_krylov_kernel<T>,
            gpu::plan_large_krylov<T>(batch.m, batch.n, args.k), args, largest);
  launch<T>(op, device, batch, &gpu::large_topk_kernel<T>,
            gpu::plan_large_forward<T>(batch.m, batch.n, args.k), args, largest);
}

// k triples of matrices with a small side of p.
int64_t most_triples(int64_t p) { return p <= kLargestSmallSide ? kLargestK : kLargestKAbove; }

std::tuple<Tensor, Tensor, Tensor, Tensor> topk_cuda(const Tensor& input, int64_t k, bool compute_u,
                                                     bool canonical, bool /*lorentz*/) {
  const MatrixBatch batch("svd_topk", input, true);
  const int64_t m = batch.m, n = batch.n, p = batch.small_side();
  batch.check_small_side("svd_topk", kLargestTopkOnCuda);
  batch.check_k("svd_topk", k, most_triples(p));
  Tensor U = batch.result({m, compute_u ? k : 0}), S = batch.result({k});
  Tensor Vh = batch.result({k, n}), saved = batch.result({topk_saved_rows(p, k), p});
  if (batch.count == 0) return {U, S, Vh, saved};
  for_real_type("svd_topk", batch.A, [&]<class T>(T) {
    const OnDevice device(batch.A);
    gpu::TopkArguments<T> args{gpu::shape_of_batch(batch)};
    args.A = pointer<T>(batch.A);
    args.U = compute_u ? pointer<T>(U) : nullptr;
    args.S = pointer<T>(S), args.Vh = pointer<T>(Vh), args.saved = pointer<T>(saved);
    args.k = static_cast<int>(k), args.canonical = canonical;
    if (p > kLargestSmallSide) return large_forward<T>(device, batch, args);
    const int64_t shared = device.shared_memory_per_block() - gpu::kSharedReserve;
    const auto forward = gpu::plan_topk_forward<T>(m, n, args.k, shared);
    launch<T>("svd_topk", device, batch, &gpu::svd_topk_kernel<T>, forward, args, forward.plan);
    const auto dense = gpu::plan_topk_dense<T>(m, n, args.k, shared);
    launch<T>("svd_topk", device, batch, &gpu::svd_topk_dense_kernel<T>, dense, args, dense.plan);
  });
  return {U, S, Vh, saved};
}

Tensor topk_backward_cuda(const std::optional<Tensor>& gU, const std::optional<Tensor>& gS,
                          const std::optional<Tensor>& gVh, const Tensor& input, const Tensor& U,
                          const Tensor& S, const Tensor& Vh, const Tensor& saved, bool lorentz) {
  const char* op = "svd_topk_backward";
  const MatrixBatch batch(op, input, true);
  const int64_t m = batch.m, n = batch.n, p = batch.small_side();
  batch.check_small_side(op, kLargestTopkOnCuda);
  const int64_t k = batch.check_triples(op, U, S, Vh, most_triples(p));
  batch.check_part(op, "saved", saved, {topk_saved_rows(p, k), p});
  const auto u = cotangent(op, "gU", gU, U), s = cotangent(op, "gS", gS, S),
             vh = cotangent(op, "gVh", gVh, Vh);
  Tensor gA = batch.like_A();
  if (batch.count == 0) return gA;
  const Tensor left = contiguous_of(U), values = contiguous_of(S), right = contiguous_of(Vh);
  const Tensor factors = contiguous_of(saved);
  for_real_type(op, batch.A, [&]<class T>(T) {
    const OnDevice device(batch.A);
    gpu::TopkGradientArguments<T> args{gpu::shape_of_batch(batch)};
    args.A = pointer<T>(batch.A), args.gA = pointer<T>(gA);
    args.U = left.numel() > 0 ? pointer<T>(left) : nullptr;
    args.S = pointer<T>(values), args.Vh = pointer<T>(right), args.saved = pointer<T>(factors);
    args.gU = pointer_or_null<T>(u), args.gS = pointer_or_null<T>(s);
    args.gVh = pointer_or_null<T>(vh);
    args.k = static_cast<int>(k), args.lorentz = lorentz;
    if (p > kLargestSmallSide)
      return launch<T>(op, device, batch, &gpu::large_backward_kernel<T>,
                       gpu::plan_large_backward<T>(m, n, args.k), args);
    const int64_t shared = device.shared_memory_per_block() - gpu::kSharedReserve;
    const auto plan = gpu::plan_topk_backward<T>(m, n, args.k, shared);
    launch<T>(op, device, batch, &gpu::svd_topk_backward_kernel<T>, plan, args, plan.plan);
  });
  return gA;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(kdops, CUDA, m) {
  m.impl("svd_topk", TORCH_BOX(&topk_cuda));
  m.impl("svd_topk_backward", TORCH_BOX(&topk_backward_cuda));
}

}  // namespace kdops::svd
