// svd, svdvals and eigh on CUDA: chooses kernel and geometry (full_launch.h), one launch each or two,
// no synchronisation. `fast` has no meaning here: the accurate kernels are the only ones.
#include "common/torch/stream.h"
// stream.h first: it declares torch's CUDA shims weak
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "svd/full/full_launch.h"
#include "svd/matrix_batch.h"

namespace kdops::svd {
namespace {

using gpu::SvdArguments;

template <class T, int kLanes>
void launch_small(const SvdArguments<T>& args, const OnDevice& device, const char* op) {
  const int64_t groups = gpu::kSmallThreads / kLanes;
  const dim3 grid = grid_of(op, (args.count + groups - 1) / groups);
  const auto kernel =
      args.symmetric ? gpu::eigh_small_kernel<T, kLanes> : gpu::svd_small_kernel<T, kLanes>;
  kernel<<<grid, gpu::kSmallThreads, 0, device.stream()>>>(args);
}

template <class T>
void launch_gram(const SvdArguments<T>& args, int side, const OnDevice& device, const char* op) {
  const auto kernel = side == 16 ? gpu::svd_gram_kernel<T, 16> : gpu::svd_gram_kernel<T, 32>;
  const size_t bytes = gpu::gram_bytes<T>(side);
  allow_shared_memory(op, kernel, bytes);
  kernel<<<grid_of(op, args.count), gpu::kGramThreads, bytes, device.stream()>>>(
      args, static_cast<int>(device.multiprocessors()));
  check_launch(op);
}

template <class T>
void launch_svd(SvdArguments<T> args, const MatrixBatch& batch, const char* op) {
  batch.check_small_side(op);
  if (args.count == 0) return;
  const OnDevice device(batch.A);
  const int lanes = gpu::small_class<T>(args.m, args.n);
  if (lanes == 16) {
    launch_small<T, 16>(args, device, op);
  } else if (lanes > 0) {
    if constexpr (sizeof(T) == 4) {
      if (lanes == 8) launch_small<T, 8>(args, device, op);
      if (lanes == 32) launch_small<T, 32>(args, device, op);
    }
  } else {
    const bool with_long = (args.symmetric || args.m >= args.n ? args.U : args.Vh) != nullptr;
    const int64_t shared = device.shared_memory_per_block() - gpu::kSharedReserve;
    const int gram = args.symmetric ? 0 : gpu::gram_side<T>(args.m, args.n, shared);
    args.only_refused = gram > 0;
    if (gram > 0) launch_gram(args, gram, device, op);
    const auto launch = gpu::plan_block<T>(args.m, args.n, with_long, shared);
    const Tensor workspace =
        empty_for(batch.A, {launch.workspace > 0 ? args.count : 0, launch.workspace});
    const int side = gpu::block_side<T>(batch.small_side());
    constexpr int kSmallest = sizeof(T) == 4 ? 16 : 32;
    const auto kernel = args.symmetric ? gpu::eigh_block_kernel<T>
                        : side == 16   ? gpu::svd_block_kernel<T, kSmallest>
                        : side == 32   ? gpu::svd_block_kernel<T, 32>
                        : side == 64   ? gpu::svd_block_kernel<T, 64>
                                       : gpu::svd_block_kernel<T, 128>;
    allow_shared_memory(op, kernel, launch.shared_bytes);
    kernel<<<grid_of(op, args.count), launch.plan.threads, launch.shared_bytes, device.stream()>>>(
        args, launch.plan, pointer<T>(workspace));
  }
  check_launch(op);
}

// What every op gives; the rest is for the caller to fill in.
template <class T>
SvdArguments<T> arguments(const MatrixBatch& batch, const Tensor& values) {
  SvdArguments<T> args{gpu::shape_of_batch(batch)};
  args.A = pointer<T>(batch.A), args.S = pointer<T>(values);
  return args;
}

std::tuple<Tensor, Tensor, Tensor> svd_cuda(const Tensor& input, bool compute_u, bool canonical,
                                            bool /*fast*/, bool /*lorentz*/) {
  const MatrixBatch batch("svd", input, true);
  const int64_t m = batch.m, n = batch.n, p = batch.small_side();
  Tensor U = batch.result({m, compute_u ? p : 0}), S = batch.result({p}), Vh = batch.result({p, n});
  for_real_type("svd", batch.A, [&]<class T>(T) {
    SvdArguments<T> args = arguments<T>(batch, S);
    args.U = compute_u ? pointer<T>(U) : nullptr, args.Vh = pointer<T>(Vh);
    args.canonical = canonical;
    launch_svd(args, batch, "svd");
  });
  return {U, S, Vh};
}

Tensor svdvals_cuda(const Tensor& input) {
  const MatrixBatch batch("svdvals", input, true);
  Tensor S = batch.result({batch.small_side()});
  for_real_type("svdvals", batch.A,
                [&]<class T>(T) { launch_svd(arguments<T>(batch, S), batch, "svdvals"); });
  return S;
}

std::tuple<Tensor, Tensor> eigh_cuda(const Tensor& input) {
  const MatrixBatch batch("eigh", input);
  STD_TORCH_CHECK(batch.m == batch.n, "eigh: expected square matrices, got A of shape ",
                  shape_of(batch.A));
  Tensor values = batch.result({batch.n}), vectors = batch.result({batch.n, batch.n});
  for_real_type("eigh", batch.A, [&]<class T>(T) {
    SvdArguments<T> args = arguments<T>(batch, values);
    args.U = pointer<T>(vectors), args.symmetric = true;
    launch_svd(args, batch, "eigh");
  });
  return {values, vectors};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(kdops, CUDA, m) {
  m.impl("svd", TORCH_BOX(&svd_cuda));
  m.impl("svdvals", TORCH_BOX(&svdvals_cuda));
  m.impl("eigh", TORCH_BOX(&eigh_cuda));
}

}  // namespace kdops::svd
