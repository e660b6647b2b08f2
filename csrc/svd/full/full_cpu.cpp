// CPU glue of svd, svdvals, eigh and svd_backward: stable tensors to pointers, the batch over the
// threads.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "common/torch/parallel.h"
#include "svd/full/full_simd.h"
#include "svd/matrix_batch.h"

namespace kdops::svd {
namespace {

// Rough cost of one matrix; it only decides when a second thread is worth waking.
double svd_flops(const MatrixBatch& batch) {
  const double p = batch.small_side(), length = std::max(batch.m, batch.n);
  return 6 * length * p * p + 14 * p * p * p;
}

// U without columns: not wanted; no Vh: nor is any vector.
void decompose(const char* op, const MatrixBatch& batch, const std::optional<Tensor>& U,
               const Tensor& S, const std::optional<Tensor>& Vh, bool canonical, bool fast) {
  const double flops = svd_flops(batch) / (Vh ? 1 : 2);
  for_real_type(op, batch.A, [&]<class T>(T) {
    const SvdProblem<T> problem{.a = pointer<T>(batch.A),
                                .u = pointer_or_null<T>(U),
                                .s = pointer<T>(S),
                                .vh = pointer_or_null<T>(Vh),
                                .m = static_cast<int>(batch.m),
                                .n = static_cast<int>(batch.n),
                                .by_columns = batch.column_major,
                                .canonical = canonical,
                                .fast = fast};
    parallel_for(batch.count, flops, KDOPS_BEST(svd_full<T>), problem);
  });
}

std::tuple<Tensor, Tensor, Tensor> svd_cpu(const Tensor& input, bool compute_u, bool canonical,
                                           bool fast, bool /*lorentz*/) {
  const MatrixBatch batch("svd", input, true);
  batch.check_small_side("svd");
  const int64_t m = batch.m, n = batch.n, p = batch.small_side();
  Tensor U = batch.result({m, compute_u ? p : 0}), S = batch.result({p}), Vh = batch.result({p, n});
  decompose("svd", batch, U, S, Vh, canonical, fast);
  return {U, S, Vh};
}

Tensor svdvals_cpu(const Tensor& input) {
  const MatrixBatch batch("svdvals", input, true);
  batch.check_small_side("svdvals");
  Tensor S = batch.result({batch.small_side()});
  decompose("svdvals", batch, std::nullopt, S, std::nullopt, false, false);
  return S;
}

std::tuple<Tensor, Tensor> eigh_cpu(const Tensor& input) {
  const MatrixBatch batch("eigh", input);
  STD_TORCH_CHECK(batch.m == batch.n, "eigh: expected square matrices, got ", shape_of(batch.A));
  batch.check_small_side("eigh");
  const int64_t n = batch.n;
  Tensor values = batch.result({n}), vectors = batch.result({n, n});
  for_real_type("eigh", batch.A, [&]<class T>(T) {
    const EighProblem<T> problem{.a = pointer<T>(batch.A),
                                 .values = pointer<T>(values),
                                 .vectors = pointer<T>(vectors),
                                 .n = static_cast<int>(n)};
    parallel_for(batch.count, svd_flops(batch), KDOPS_BEST(eigh<T>), problem);
  });
  return {values, vectors};
}

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
  for_real_type(op, U, [&]<class T>(T) {
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
    parallel_for(left.count, flops, KDOPS_BEST(svd_backward<T>), problem);
  });
  return gA;
}

}  // namespace
}  // namespace kdops::svd

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("svd", TORCH_BOX(&kdops::svd::svd_cpu));
  m.impl("svdvals", TORCH_BOX(&kdops::svd::svdvals_cpu));
  m.impl("eigh", TORCH_BOX(&kdops::svd::eigh_cpu));
  m.impl("svd_backward", TORCH_BOX(&kdops::svd::svd_backward_cpu));
}
