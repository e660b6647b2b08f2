// CPU glue of svd_rbf_loss: stable tensors to pointers and strides, items over the threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>
#include <vector>

#include "common/torch/dispatch.h"
#include "common/torch/parallel.h"
#include "common/torch/tensors.h"
#include "rbf/svd_rbf_check.h"
#include "rbf/svd_rbf_simd.h"

namespace kdops::rbf {
namespace {

template <class T>
Vectors<T> vectors_of(const Tensor& x) {
  return {pointer<T>(x), x.stride(0), x.stride(1), x.stride(2)};
}

template <class T>
void run_items(SvdRbfProblem<T>& problem, int64_t items, T* loss) {
  std::vector<double> losses(static_cast<size_t>(items), 0.0);
  problem.losses = losses.data();
  // The low-rank form costs about 100 operations a value; the direct one more, and is rare.
  const double flops = 100.0 * static_cast<double>(problem.front + problem.back);
  parallel_for(items, flops, KDOPS_BEST(svd_rbf_items<T>), problem);
  *loss = static_cast<T>(ordered_sum(losses) * problem.scale);
}

template <class T>
void svd_rbf_loss(const Tensor& sf, const Tensor& sb, const Tensor& tf, const Tensor& tb,
                  double beta, double scale, Tensor& loss, Tensor& gf, Tensor& gb) {
  SvdRbfProblem<T> problem{vectors_of<T>(sf),
                           vectors_of<T>(sb),
                           vectors_of<T>(tf),
                           vectors_of<T>(tb),
                           sf.size(1),
                           sb.size(1),
                           sf.size(2),
                           beta,
                           scale,
                           gf.dim() == 3,
                           nullptr,
                           pointer<T>(gf),
                           pointer<T>(gb)};
  run_items(problem, sf.size(0) * sf.size(2), pointer<T>(loss));
}

std::tuple<Tensor, Tensor, Tensor> svd_rbf_loss_cpu(const Tensor& sf, const Tensor& sb,
                                                    const Tensor& tf, const Tensor& tb, double beta,
                                                    int64_t variant, bool gradients) {
  check_levels(sf, sb, tf, tb);
  const double scale = svd_rbf_scale(sf, variant);
  Tensor loss = empty_for(sf, {});
  Tensor gf = gradient_for(sf, gradients), gb = gradient_for(sb, gradients);
  for_real_type("svd_rbf_loss", sf,
                [&]<class T>(T) { svd_rbf_loss<T>(sf, sb, tf, tb, beta, scale, loss, gf, gb); });
  return {loss, gf, gb};
}

}  // namespace
}  // namespace kdops::rbf

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("svd_rbf_loss", TORCH_BOX(&kdops::rbf::svd_rbf_loss_cpu));
}
