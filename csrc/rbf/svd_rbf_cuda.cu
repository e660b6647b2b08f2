// Launches of svd_rbf_loss: one block per sample and component, then one block that adds up.
#include "rbf/svd_rbf_kernels.cuh"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <tuple>

#include "common/torch/dispatch.h"
#include "common/torch/stream.h"
#include "common/torch/tensors.h"
#include "rbf/svd_rbf_check.h"

namespace kdops::rbf {
namespace {

constexpr const char* kOp = "svd_rbf_loss";

// Without the places of the results.
template <class T>
gpu::SvdRbfLaunch<T> problem_of(const Tensor& sf, const Tensor& sb, const Tensor& tf,
                                const Tensor& tb, double beta, double scale) {
  gpu::SvdRbfLaunch<T> problem{};
  using Input = gpu::SvdRbfInput<T>;
  problem.student_front = strided<Input>(sf), problem.student_back = strided<Input>(sb);
  problem.teacher_front = strided<Input>(tf), problem.teacher_back = strided<Input>(tb);
  problem.front = static_cast<int>(sf.size(1)), problem.back = static_cast<int>(sb.size(1));
  problem.components = static_cast<int>(sf.size(2));
  problem.root = static_cast<T>(std::sqrt(std::numbers::log2e / beta));
  problem.factor = static_cast<T>(-4 * scale * std::sqrt(std::numbers::ln2 / beta));
  problem.unit = std::sqrt(2 / beta), problem.low_rank_factor = 2 * problem.unit * scale;
  problem.reach = gpu::svd_rbf_reach<T>(problem.front, problem.back);
  return problem;
}

// One item per sample and component; the sum of their losses, times `scale`, goes to `loss`.
template <class T>
void launch(const OnDevice& device, const gpu::SvdRbfLaunch<T>& problem, int64_t items,
            double scale, T* loss) {
  if (items > 0) {
    const int64_t bytes = gpu::svd_rbf_bytes(problem);
    gpu::for_svd_rbf_fronts(problem, [&](auto fronts) {
      const auto kernel = gpu::svd_rbf_kernel<T, decltype(fronts)::value>;
      // Beside the kernel's own arrays less than 48 KiB may be too much for the default.
      if (bytes > gpu::kSvdRbfRoomyBytes)
        allow_shared_memory(kOp, kernel, std::max<int64_t>(bytes, (48 << 10) + 1));
      kernel<<<grid_of(kOp, items), gpu::kSvdRbfThreads, static_cast<size_t>(bytes),
               device.stream()>>>(problem);
    });
    check_launch(kOp);
  }
  gpu::svd_rbf_sum_kernel<T>
      <<<1, gpu::kSvdRbfThreads, 0, device.stream()>>>(problem.losses, items, scale, loss);
  check_launch(kOp);
}

std::tuple<Tensor, Tensor, Tensor> svd_rbf_loss_cuda(const Tensor& sf, const Tensor& sb,
                                                     const Tensor& tf, const Tensor& tb,
                                                     double beta, int64_t variant, bool gradients) {
  check_levels(sf, sb, tf, tb);
  const OnDevice device(sf);
  const double scale = svd_rbf_scale(sf, variant);
  const int64_t batch = sf.size(0), k = sf.size(2);
  Tensor loss = empty_for(sf, {});
  Tensor gf = gradient_for(sf, gradients), gb = gradient_for(sb, gradients);
  const Tensor losses = empty_for(sf, {batch * k}, ScalarType::Double);
  for_real_type(kOp, sf, [&]<class T>(T) {
    auto problem = problem_of<T>(sf, sb, tf, tb, beta, scale);
    problem.gradients = gradients;
    problem.losses = pointer<double>(losses);
    problem.gradient_front = pointer<T>(gf), problem.gradient_back = pointer<T>(gb);
    launch<T>(device, problem, batch * k, scale, pointer<T>(loss));
  });
  return {loss, gf, gb};
}

}  // namespace
}  // namespace kdops::rbf

STABLE_TORCH_LIBRARY_IMPL(kdops, CUDA, m) {
  m.impl("svd_rbf_loss", TORCH_BOX(&kdops::rbf::svd_rbf_loss_cuda));
}
