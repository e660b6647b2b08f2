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
  return {static_cast<const T*>(x.data_ptr()), x.stride(0), x.stride(1), x.stride(2)};
}

template <class T>
void run_items(SvdRbfProblem<T>& problem, int64_t items, T* loss) {
  std::vector<double> losses(static_cast<size_t>(items), 0.0);
  problem.losses = losses.data();
  // The low-rank form costs about 100 operations a value; the direct one more, and is rare.
  const double flops = 100.0 * static_cast<double>(problem.front + problem.back);
  parallel_for(items, flops, [&](int64_t begin, int64_t end) {
    KDOPS_BEST(svd_rbf_items<T>)(problem, begin, end);
  });
  double total = 0;
  for (const double value : losses) total += value;
  *loss = static_cast<T>(total * problem.scale);
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
                           static_cast<T*>(gf.data_ptr()),
                           static_cast<T*>(gb.data_ptr())};
  run_items(problem, sf.size(0) * sf.size(2), static_cast<T*>(loss.data_ptr()));
}

std::tuple<Tensor, Tensor, Tensor> svd_rbf_loss_cpu(const Tensor& sf, const Tensor& sb,
                                                    const Tensor& tf, const Tensor& tb, double beta,
                                                    double scale, bool gradients) {
  check_levels(sf, sb, tf, tb);
  const int64_t batch = sf.size(0), k = sf.size(2);
  Tensor loss = empty_for(sf, {});
  Tensor gf = gradients ? empty_for(sf, {batch, sf.size(1), k}) : empty_for(sf, {0});
  Tensor gb = gradients ? empty_for(sb, {batch, sb.size(1), k}) : empty_for(sb, {0});
  for_real_type("svd_rbf_loss", sf, [&](auto real) {
    svd_rbf_loss<decltype(real)>(sf, sb, tf, tb, beta, scale, loss, gf, gb);
  });
  return {loss, gf, gb};
}

}  // namespace
}  // namespace kdops::rbf

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("svd_rbf_loss", TORCH_BOX(&kdops::rbf::svd_rbf_loss_cpu));
}
