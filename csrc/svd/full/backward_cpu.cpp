// CPU glue of svd_backward: stable tensors to pointers, the batch over the threads.
#include <torch/csrc/stable/library.h>

#include <optional>

#include "common/torch/parallel.h"
#include "svd/full/backward_simd.h"
#include "svd/matrix_batch.h"

namespace kdops::svd {
namespace {

Tensor svd_backward_cpu(const std::optional<Tensor>& gU, const std::optional<Tensor>& gS,
                        const std::optional<Tensor>& gVh, const Tensor& U, const Tensor& S,
                        const Tensor& Vh, bool lorentz) {
  const char* op = "svd_backward";
  const MatrixBatch left(op, U), right(op, Vh);
  const int64_t m = left.m, n = right.n, r = std::min(m, n);
  left.check_part(op, "U", U, {m, r});
  left.check_part(op, "S", S, {r});
  left.check_part(op, "Vh", Vh, {r, n});
  const Tensor values = contiguous_of(S);
  const auto gu = cotangent(op, "gU", gU, U), gs = cotangent(op, "gS", gS, S),
             gvh = cotangent(op, "gVh", gVh, Vh);
  Tensor gA = left.result({m, n});
  const double flops = 6.0 * std::max(m, n) * r * r;
  for_real_type(op, U, [&](auto kind) {
    using T = decltype(kind);
    const SvdBackwardProblem<T> problem{.gU = pointer_or_null<T>(gu),
                                        .gS = pointer_or_null<T>(gs),
                                        .gVh = pointer_or_null<T>(gvh),
                                        .U = pointer<T>(left.A),
                                        .S = pointer<T>(values),
                                        .Vh = pointer<T>(right.A),
                                        .gA = pointer<T>(gA),
                                        .m = m,
                                        .n = n,
                                        .lorentz = lorentz};
    parallel_for(left.count, flops, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(svd_backward<T>)(problem, begin, end);
    });
  });
  return gA;
}

}  // namespace
}  // namespace kdops::svd

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("svd_backward", TORCH_BOX(&kdops::svd::svd_backward_cpu));
}
