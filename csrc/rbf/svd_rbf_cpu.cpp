// CPU glue of svd_rbf_loss: stable tensors to pointers and strides, items over the threads.
#include <torch/csrc/stable/library.h>

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
Tensor svd_rbf_loss(const Tensor& sf, const Tensor& sb, const Tensor& tf, const Tensor& tb,
                    double beta, double scale, const Tensor& gf, const Tensor& gb) {
  const int64_t items = sf.size(0) * sf.size(2);
  std::vector<double> losses(static_cast<size_t>(items), 0.0);
  const SvdRbfProblem<T> problem{.student_front = strided<Vectors<T>>(sf),
                                 .student_back = strided<Vectors<T>>(sb),
                                 .teacher_front = strided<Vectors<T>>(tf),
                                 .teacher_back = strided<Vectors<T>>(tb),
                                 .front = sf.size(1),
                                 .back = sb.size(1),
                                 .components = sf.size(2),
                                 .beta = beta,
                                 .scale = scale,
                                 .gradients = gf.dim() == 3,
                                 .losses = losses.data(),
                                 .gradient_front = pointer<T>(gf),
                                 .gradient_back = pointer<T>(gb)};
  // The low-rank form costs about 100 operations a value; the direct one more, and is rare.
  const double flops = 100.0 * static_cast<double>(problem.front + problem.back);
  parallel_for(items, flops, KDOPS_BEST(svd_rbf_items<T>), problem);
  return scalar_for<T>(sf, ordered_sum(losses) * scale);
}

std::tuple<Tensor, Tensor, Tensor> svd_rbf_loss_cpu(const Tensor& sf, const Tensor& sb,
                                                    const Tensor& tf, const Tensor& tb, double beta,
                                                    int64_t variant, bool gradients) {
  check_levels(sf, sb, tf, tb);
  const double scale = svd_rbf_scale(sf, variant);
  Tensor gf = gradient_for(sf, gradients), gb = gradient_for(sb, gradients);
  Tensor loss = for_real_type("svd_rbf_loss", sf, [&]<class T>(T) {
    return svd_rbf_loss<T>(sf, sb, tf, tb, beta, scale, gf, gb);
  });
  return {loss, gf, gb};
}

}  // namespace
}  // namespace kdops::rbf

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("svd_rbf_loss", TORCH_BOX(&kdops::rbf::svd_rbf_loss_cpu));
}
