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
  check_size(op, "U", left.A, left.A.dim() - 1, r);
  check_size(op, "Vh", right.A, right.A.dim() - 2, r);
  check_like(op, "Vh", Vh, U);
  check_like(op, "S", S, U);
  STD_TORCH_CHECK(left.count == right.count && S.numel() == left.count * r, op,
                  ": U, S and Vh do not belong together");
  const Tensor values = contiguous_of(S);
  const auto gu = cotangent(op, "gU", gU, U), gs = cotangent(op, "gS", gS, S),
             gvh = cotangent(op, "gVh", gVh, Vh);
  Tensor gA = left.result({m, n});
  const double flops = 6.0 * std::max(m, n) * r * r;
  for_real_type(op, U, [&](auto kind) {
    using T = decltype(kind);
    parallel_for(left.count, flops, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(svd_backward<T>)
      (pointer_at<T>(gu, begin * m * r), pointer_at<T>(gs, begin * r),
       pointer_at<T>(gvh, begin * r * n), pointer<T>(left.A) + begin * m * r,
       pointer<T>(values) + begin * r, pointer<T>(right.A) + begin * r * n,
       pointer<T>(gA) + begin * m * n, end - begin, m, n, lorentz);
    });
  });
  return gA;
}

}  // namespace
}  // namespace kdops::svd

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("svd_backward", TORCH_BOX(&kdops::svd::svd_backward_cpu));
}
