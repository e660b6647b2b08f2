// svd_topk and its gradient on CUDA: geometry from topk_launch.h, no synchronisation. The forward
// is two launches, of which the second does nothing for most matrices (dense_kernels.cuh), the
// gradient one. `lorentz` of the forward only travels to the gradient.
#include "common/torch/stream.h"
// stream.h first: it declares torch's CUDA shims weak
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "svd/matrix_batch.h"
#include "svd/topk/topk_launch.h"

namespace kdops::svd {
namespace {

// Static shared memory of the kernels and the runtime's own kilobyte come off the device's limit.
constexpr int64_t kSharedReserve = 2048, kLargestSmallSide = 128;

void check_topk(const char* op, const MatrixBatch& batch, int64_t k) {
  STD_TORCH_CHECK(batch.small_side() <= kLargestSmallSide, op,
                  ": expected min(m, n) <= ", kLargestSmallSide, ", got A of shape ",
                  shape_of(batch.A));
  STD_TORCH_CHECK(k >= 1 && k <= gpu::kMaxK && k <= batch.small_side(), op,
                  ": expected 1 <= k <= min(m, n, ", gpu::kMaxK, "), got k = ", k);
}

// One block per matrix; the workspace lives until the launch, in stream order.
template <class T, class Kernel, class Arguments, class Plan>
void launch(const char* op, const OnDevice& device, const MatrixBatch& batch, Kernel* kernel,
            const Arguments& args, const gpu::TopkLaunch<Plan>& geometry) {
  const int64_t matrices = geometry.workspace > 0 ? batch.count : 0;
  const Tensor workspace = empty_for(batch.A, {matrices, std::max<int64_t>(geometry.workspace, 1)});
  allow_shared_memory(op, kernel, static_cast<int64_t>(geometry.shared_bytes));
  kernel<<<grid_of(op, batch.count), gpu::kTopkThreads, geometry.shared_bytes, device.stream()>>>(
      args, geometry.plan, pointer<T>(workspace));
  check_launch(op);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> topk_cuda(const Tensor& input, int64_t k, bool compute_u,
                                                     bool canonical, bool /*lorentz*/) {
  const MatrixBatch batch("svd_topk", input, true);
  check_topk("svd_topk", batch, k);
  const int64_t m = batch.m, n = batch.n, p = batch.small_side();
  Tensor U = batch.result({m, compute_u ? k : 0}), S = batch.result({k});
  Tensor Vh = batch.result({k, n}), saved = batch.result({p + 3, p});
  if (batch.count == 0) return {U, S, Vh, saved};
  for_real_type("svd_topk", batch.A, [&]<class T>(T) {
    const OnDevice device(batch.A);
    const gpu::TopkArguments<T> args{gpu::shape_of_batch(batch),
                                     pointer<T>(batch.A),
                                     compute_u ? pointer<T>(U) : nullptr,
                                     pointer<T>(S),
                                     pointer<T>(Vh),
                                     pointer<T>(saved),
                                     static_cast<int>(k),
                                     canonical};
    const int64_t shared = device.shared_memory_per_block() - kSharedReserve;
    launch<T>("svd_topk", device, batch, &gpu::svd_topk_kernel<T>, args,
              gpu::plan_topk_forward<T>(m, n, args.k, shared));
    launch<T>("svd_topk", device, batch, &gpu::svd_topk_dense_kernel<T>, args,
              gpu::plan_topk_dense<T>(m, n, args.k, shared));
  });
  return {U, S, Vh, saved};
}

Tensor topk_backward_cuda(const std::optional<Tensor>& gU, const std::optional<Tensor>& gS,
                          const std::optional<Tensor>& gVh, const Tensor& input, const Tensor& U,
                          const Tensor& S, const Tensor& Vh, const Tensor& saved, bool lorentz) {
  const char* op = "svd_topk_backward";
  const MatrixBatch batch(op, input, true);
  const int64_t m = batch.m, n = batch.n, k = S.size(-1);
  check_topk(op, batch, k);
  Tensor gA = batch.like_A();
  if (batch.count == 0) return gA;
  const auto dense = [](const std::optional<Tensor>& g) {
    return g.has_value() ? std::optional<Tensor>(contiguous_of(*g)) : std::nullopt;
  };
  const auto u = dense(gU), s = dense(gS), vh = dense(gVh);
  const Tensor left = contiguous_of(U), values = contiguous_of(S), right = contiguous_of(Vh);
  const Tensor factors = contiguous_of(saved);
  for_real_type(op, batch.A, [&]<class T>(T) {
    const OnDevice device(batch.A);
    const auto data = [](const std::optional<Tensor>& x) { return x ? pointer<T>(*x) : nullptr; };
    const gpu::TopkGradientArguments<T> args{gpu::shape_of_batch(batch),
                                             pointer<T>(batch.A),
                                             left.numel() > 0 ? pointer<T>(left) : nullptr,
                                             pointer<T>(values),
                                             pointer<T>(right),
                                             pointer<T>(factors),
                                             data(u),
                                             data(s),
                                             data(vh),
                                             pointer<T>(gA),
                                             static_cast<int>(k),
                                             lorentz};
    const int64_t shared = device.shared_memory_per_block() - kSharedReserve;
    launch<T>(op, device, batch, &gpu::svd_topk_backward_kernel<T>, args,
              gpu::plan_topk_backward<T>(m, n, args.k, shared));
  });
  return gA;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(kdops, CUDA, m) {
  m.impl("svd_topk", TORCH_BOX(&topk_cuda));
  m.impl("svd_topk_backward", TORCH_BOX(&topk_backward_cuda));
}

}  // namespace kdops::svd
