// CPU glue of svd, svdvals and eigh: stable tensors to pointers, the batch over the threads.
#include <torch/csrc/stable/library.h>

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

std::tuple<Tensor, Tensor, Tensor> svd_cpu(const Tensor& input, bool compute_u, bool canonical,
                                           bool fast, bool /*lorentz*/) {
  const MatrixBatch batch("svd", input, true);
  batch.check_small_side("svd");
  const int64_t m = batch.m, n = batch.n, p = batch.small_side();
  Tensor U = batch.result({m, compute_u ? p : 0}), S = batch.result({p}), Vh = batch.result({p, n});
  for_real_type("svd", batch.A, [&](auto kind) {
    using T = decltype(kind);
    const SvdProblem<T> problem{.a = pointer<T>(batch.A),
                                .u = compute_u ? pointer<T>(U) : nullptr,
                                .s = pointer<T>(S),
                                .vh = pointer<T>(Vh),
                                .m = static_cast<int>(m),
                                .n = static_cast<int>(n),
                                .by_columns = batch.column_major,
                                .canonical = canonical,
                                .fast = fast};
    parallel_for(batch.count, svd_flops(batch),
                 [&](int64_t begin, int64_t end) { KDOPS_BEST(svd_full<T>)(problem, begin, end); });
  });
  return {U, S, Vh};
}

Tensor svdvals_cpu(const Tensor& input) {
  const MatrixBatch batch("svdvals", input, true);
  batch.check_small_side("svdvals");
  Tensor S = batch.result({batch.small_side()});
  for_real_type("svdvals", batch.A, [&](auto kind) {
    using T = decltype(kind);
    const SvdProblem<T> problem{.a = pointer<T>(batch.A),
                                .u = nullptr,
                                .s = pointer<T>(S),
                                .vh = nullptr,
                                .m = static_cast<int>(batch.m),
                                .n = static_cast<int>(batch.n),
                                .by_columns = batch.column_major};
    parallel_for(batch.count, svd_flops(batch) / 2,
                 [&](int64_t begin, int64_t end) { KDOPS_BEST(svd_full<T>)(problem, begin, end); });
  });
  return S;
}

std::tuple<Tensor, Tensor> eigh_cpu(const Tensor& input) {
  const MatrixBatch batch("eigh", input);
  STD_TORCH_CHECK(batch.m == batch.n, "eigh: expected square matrices, got ", shape_of(batch.A));
  batch.check_small_side("eigh");
  const int64_t n = batch.n;
  Tensor values = batch.result({n}), vectors = batch.result({n, n});
  for_real_type("eigh", batch.A, [&](auto kind) {
    using T = decltype(kind);
    const EighProblem<T> problem{.a = pointer<T>(batch.A),
                                 .values = pointer<T>(values),
                                 .vectors = pointer<T>(vectors),
                                 .n = static_cast<int>(n)};
    parallel_for(batch.count, svd_flops(batch),
                 [&](int64_t begin, int64_t end) { KDOPS_BEST(eigh<T>)(problem, begin, end); });
  });
  return {values, vectors};
}

}  // namespace
}  // namespace kdops::svd

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("svd", TORCH_BOX(&kdops::svd::svd_cpu));
  m.impl("svdvals", TORCH_BOX(&kdops::svd::svdvals_cpu));
  m.impl("eigh", TORCH_BOX(&kdops::svd::eigh_cpu));
}
