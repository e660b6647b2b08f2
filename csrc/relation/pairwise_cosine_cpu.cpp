// CPU glue of pairwise_cosine: unit rows around matrix products.
#include "relation/pairwise_batch.h"

namespace kdops::relation {
namespace {

template <class T>
struct UnitRows {
  Tensor rows;
  std::vector<T> inverse;

  explicit UnitRows(const Tensor& x) : rows(empty_for(x)), inverse(x.size(0) * x.size(1)) {
    const Rows<T> all{pointer<T>(x), x.size(0) * x.size(1), x.size(2)};
    parallel_for(all.count, 6.0 * all.length, KDOPS_BEST(unit_rows<T>), all, pointer<T>(rows),
                 inverse.data());
  }
  // The cotangent of x in the place of the one of the unit rows.
  Tensor backward(Tensor grad) const {
    const Rows<T> all{pointer<T>(rows), rows.size(0) * rows.size(1), rows.size(2)};
    parallel_for(all.count, 6.0 * all.length, KDOPS_BEST(unit_rows_backward<T>), all,
                 inverse.data(), pointer<T>(grad));
    return grad;
  }
};

Tensor pairwise_cosine_cpu(const Tensor& x_any, const std::optional<Tensor>& y_any) {
  check_pair("pairwise_cosine", x_any, y_any);
  const Tensor x = contiguous_of(x_any);
  return for_real_type("pairwise_cosine", x, [&]<class T>(T) {
    const UnitRows<T> left(x);
    if (!y_any) return gram_of<T>(left.rows, left.rows, true);
    return gram_of<T>(left.rows, UnitRows<T>(contiguous_of(*y_any)).rows, false);
  });
}

Pair pairwise_cosine_backward_cpu(const Tensor& grad, const Tensor& x_any,
                                  const std::optional<Tensor>& y_any) {
  check_pair("pairwise_cosine_backward", x_any, y_any);
  check_pairs("pairwise_cosine_backward", "grad", grad, x_any, y_any);
  const Tensor x = contiguous_of(x_any);
  return for_real_type("pairwise_cosine_backward", x, [&]<class T>(T) -> Pair {
    const UnitRows<T> left(x);
    if (!y_any) {
      Tensor both = torch::stable::clone(contiguous_of(grad));
      add_transposes<T>(both);
      return {left.backward(product(both, left.rows)), none(x)};
    }
    const UnitRows<T> right(contiguous_of(*y_any));
    return {left.backward(product(grad, right.rows)),
            right.backward(product(torch::stable::transpose(grad, 1, 2), left.rows))};
  });
}

}  // namespace
}  // namespace kdops::relation

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("pairwise_cosine", TORCH_BOX(&kdops::relation::pairwise_cosine_cpu));
  m.impl("pairwise_cosine_backward", TORCH_BOX(&kdops::relation::pairwise_cosine_backward_cpu));
}
