// CPU glue of svd_topk and its backward: stable tensors to pointers, the batch over the threads.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "common/torch/parallel.h"
#include "svd/matrix_batch.h"
#include "svd/shared/saved.h"
#include "svd/topk/topk_simd.h"

namespace kdops::svd {
namespace {

// Rough cost of one matrix; it only decides when a second thread is worth waking.
double topk_flops(const MatrixBatch& batch, int64_t k) {
  const double p = batch.small_side(), length = std::max(batch.m, batch.n);
  return length * p * (p + 4.0 * k) + 3 * p * p * p;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> svd_topk_cpu(const Tensor& input, int64_t k,
                                                        bool compute_u, bool canonical,
                                                        bool /*lorentz*/) {
  const MatrixBatch batch("svd_topk", input, true);
  const int64_t m = batch.m, n = batch.n, p = batch.small_side();
  batch.check_k("svd_topk", k, kLargestKAbove);
  Tensor U = batch.result({m, compute_u ? k : 0}), S = batch.result({k}), Vh = batch.result({k, n}),
         saved = batch.result({topk_saved_rows(p, k), p});
  const int64_t stride = topk_saved_rows(p, k) * p;
  for_real_type("svd_topk", batch.A, [&]<class T>(T) {
    const TopkForwardProblem<T> problem{.A = pointer<T>(batch.A),
                                        .out = {.U = pointer_or_null<T>(U),
                                                .S = pointer<T>(S),
                                                .Vh = pointer<T>(Vh),
                                                .saved = pointer<T>(saved)},
                                        .m = static_cast<int>(m),
                                        .n = static_cast<int>(n),
                                        .k = static_cast<int>(k),
                                        .canonical = canonical,
                                        .column_major = batch.column_major};
    parallel_for(batch.count, topk_flops(batch, k), [&](int64_t begin, int64_t end) {
      // a route may leave a part unwritten; outputs of an op are never left to chance
      std::fill(problem.out.saved + begin * stride, problem.out.saved + end * stride, T(0));
      KDOPS_BEST(svd_topk_forward<T>)(problem, begin, end);
    });
  });
  return {U, S, Vh, saved};
}

Tensor svd_topk_backward_cpu(const std::optional<Tensor>& gU, const std::optional<Tensor>& gS,
                             const std::optional<Tensor>& gVh, const Tensor& input, const Tensor& U,
                             const Tensor& S, const Tensor& Vh, const Tensor& saved, bool lorentz) {
  const char* op = "svd_topk_backward";
  const MatrixBatch batch(op, input, true);
  const int64_t m = batch.m, n = batch.n, p = batch.small_side();
  const int64_t k = batch.check_triples(op, U, S, Vh, kLargestKAbove);
  batch.check_part(op, "saved", saved, {topk_saved_rows(p, k), p});
  const auto gu = cotangent(op, "gU", gU, U), gs = cotangent(op, "gS", gS, S),
             gvh = cotangent(op, "gVh", gVh, Vh);
  const std::optional<Tensor> u = contiguous_of(U);
  const Tensor s = contiguous_of(S), vh = contiguous_of(Vh), keep = contiguous_of(saved);
  Tensor gA = batch.like_A();
  for_real_type("svd_topk_backward", batch.A, [&]<class T>(T) {
    const TopkBackwardProblem<T> problem{.in = {.gU = pointer_or_null<T>(gu),
                                                .gS = pointer_or_null<T>(gs),
                                                .gVh = pointer_or_null<T>(gvh),
                                                .A = pointer<T>(batch.A),
                                                .U = pointer_or_null<T>(u),
                                                .S = pointer<T>(s),
                                                .Vh = pointer<T>(vh),
                                                .saved = pointer<T>(keep)},
                                         .gA = pointer<T>(gA),
                                         .m = static_cast<int>(m),
                                         .n = static_cast<int>(n),
                                         .k = static_cast<int>(k),
                                         .lorentz = lorentz,
                                         .column_major = batch.column_major};
    parallel_for(batch.count, topk_flops(batch, 2 * k), KDOPS_BEST(svd_topk_backward<T>), problem);
  });
  return gA;
}

}  // namespace
}  // namespace kdops::svd

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("svd_topk", TORCH_BOX(&kdops::svd::svd_topk_cpu));
  m.impl("svd_topk_backward", TORCH_BOX(&kdops::svd::svd_topk_backward_cpu));
}
