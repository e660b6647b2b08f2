// CPU glue of the gram room: stable tensors to pointers and strides, the batch over the threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <tuple>

#include "common/check.h"
#include "common/parallel.h"
#include "gram/gram_simd.h"

namespace kdops {
namespace {

using torch::headeronly::ScalarType;

template <class In>
Maps<In> maps_of(const Tensor& x) {
  return {static_cast<const In*>(x.data_ptr()), x.stride(0), x.stride(1), x.stride(2)};
}

void check_maps(const char* op, const Tensor& x, const Tensor& y) {
  check_dim(op, "x", x, 3);
  check_dim(op, "y", y, 3);
  check_like(op, "y", y, x);
  check_size(op, "y", y, 0, x.size(0));
  check_size(op, "y", y, 2, x.size(2));
}

// Calls body with a value of the storage type that belongs to the dtype.
template <class Body>
void for_storage_type(const char* op, ScalarType dtype, const Body& body) {
  switch (dtype) {
    case ScalarType::Float:
      return body(float{});
    case ScalarType::Double:
      return body(double{});
    case ScalarType::Half:
      return body(Fp16{});
    case ScalarType::BFloat16:
      return body(Bf16{});
    default:
      STD_TORCH_CHECK(false, op, ": expected float64, float32, float16 or bfloat16");
  }
}

ScalarType result_type(ScalarType dtype) {
  return dtype == ScalarType::Double ? dtype : ScalarType::Float;
}

Tensor gram_cpu(const Tensor& x, const std::optional<Tensor>& y_or_none, double scale) {
  const Tensor& y = y_or_none ? *y_or_none : x;
  check_maps("gram", x, y);
  const GramShape shape{x.size(1), y.size(1), x.size(2), !y_or_none};
  const ScalarType dtype = x.scalar_type();
  Tensor out = torch::stable::new_empty(x, {x.size(0), shape.c1, shape.c2}, result_type(dtype));
  const double flops = 2.0 * shape.c1 * shape.c2 * shape.length;
  for_storage_type("gram", dtype, [&](auto kind) {
    using In = decltype(kind);
    using T = gram_result_t<In>;
    auto* target = static_cast<T*>(out.data_ptr());
    parallel_for(x.size(0), flops, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(gram_forward<In>)
      (shape, static_cast<T>(scale), maps_of<In>(x), maps_of<In>(y), target, begin, end);
    });
  });
  return result_type(dtype) == dtype ? out : torch::stable::to(out, dtype);
}

// One side of the backward: gx = scale * g y.
Tensor backward_side(const Tensor& grad, const Tensor& y, GramShape shape, bool transposed,
                     double scale) {
  const ScalarType dtype = y.scalar_type();
  Tensor gx = torch::stable::new_empty(y, {y.size(0), shape.c1, shape.length}, result_type(dtype));
  const double flops = 2.0 * shape.c1 * shape.c2 * shape.length;
  for_storage_type("gram_backward", dtype, [&](auto kind) {
    using In = decltype(kind);
    using T = gram_result_t<In>;
    const auto* g = static_cast<const T*>(grad.data_ptr());
    auto* target = static_cast<T*>(gx.data_ptr());
    parallel_for(y.size(0), flops, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(gram_backward<In>)
      (shape, transposed, static_cast<T>(scale), g, maps_of<In>(y), target, begin, end);
    });
  });
  return result_type(dtype) == dtype ? gx : torch::stable::to(gx, dtype);
}

std::tuple<Tensor, Tensor> gram_backward_cpu(const Tensor& grad, const Tensor& x,
                                             const std::optional<Tensor>& y_or_none, double scale) {
  const Tensor& y = y_or_none ? *y_or_none : x;
  check_maps("gram_backward", x, y);
  check_dim("gram_backward", "grad", grad, 3);
  check_size("gram_backward", "grad", grad, 0, x.size(0));
  check_size("gram_backward", "grad", grad, 1, x.size(1));
  check_size("gram_backward", "grad", grad, 2, y.size(1));
  const Tensor g = torch::stable::contiguous(torch::stable::to(grad, result_type(x.scalar_type())));
  const int64_t c1 = x.size(1), c2 = y.size(1), length = x.size(2);
  if (!y_or_none)
    return {backward_side(g, x, {c1, c1, length, true}, false, scale),
            torch::stable::new_empty(x, {0})};
  return {backward_side(g, y, {c1, c2, length, false}, false, scale),
          backward_side(g, x, {c2, c1, length, false}, true, scale)};
}

}  // namespace
}  // namespace kdops

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("gram", TORCH_BOX(&kdops::gram_cpu));
  m.impl("gram_backward", TORCH_BOX(&kdops::gram_backward_cpu));
}
