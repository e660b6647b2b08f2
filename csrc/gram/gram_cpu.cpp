// CPU glue of the gram room: stable tensors to pointers and strides, the batch over the threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <tuple>

#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/parallel.h"
#include "common/torch/tensors.h"
#include "gram/flat_maps.h"
#include "gram/gram_simd.h"

namespace kdops::gram {
namespace {

ScalarType result_type(ScalarType dtype) {
  return dtype == ScalarType::Double ? dtype : ScalarType::Float;
}

Tensor gram_cpu(const Tensor& x_maps, const std::optional<Tensor>& y_maps) {
  const Tensor x = flat_maps("gram", "x", x_maps);
  const Tensor y = y_maps ? flat_maps("gram", "y", *y_maps) : x;
  check_maps("gram", x, y);
  const GramShape shape{x.size(1), y.size(1), x.size(2), !y_maps};
  const ScalarType dtype = x.scalar_type();
  Tensor out = empty_for(x, {x.size(0), shape.c1, shape.c2}, result_type(dtype));
  const double flops = 2.0 * shape.c1 * shape.c2 * shape.length;
  const double scale = inverse_of(shape.length);
  for_storage_type<Fp16, Bf16>("gram", x, [&]<class In>(In) {
    using T = gram_result_t<In>;
    const GramForward<In> problem{.shape = shape,
                                  .x = strided<Maps<In>>(x),
                                  .y = strided<Maps<In>>(y),
                                  .scale = static_cast<T>(scale),
                                  .out = pointer<T>(out)};
    parallel_for(x.size(0), flops, KDOPS_BEST(gram_forward<In>), problem);
  });
  return result_type(dtype) == dtype ? out : torch::stable::to(out, dtype);
}

// One side of the backward: gx = g y / positions, of the shape of x.
Tensor backward_side(const Tensor& x, const Tensor& grad, const Tensor& y, GramShape shape,
                     bool transposed) {
  const ScalarType dtype = y.scalar_type();
  Tensor gx = empty_for(y, x.sizes(), result_type(dtype));
  const double flops = 2.0 * shape.c1 * shape.c2 * shape.length;
  const double scale = inverse_of(shape.length);
  for_storage_type<Fp16, Bf16>("gram_backward", y, [&]<class In>(In) {
    using T = gram_result_t<In>;
    const GramBackward<In> problem{.shape = shape,
                                   .transposed = transposed,
                                   .grad = pointer<T>(grad),
                                   .y = strided<Maps<In>>(y),
                                   .scale = static_cast<T>(scale),
                                   .gx = pointer<T>(gx)};
    parallel_for(y.size(0), flops, KDOPS_BEST(gram_backward<In>), problem);
  });
  return result_type(dtype) == dtype ? gx : torch::stable::to(gx, dtype);
}

std::tuple<Tensor, Tensor> gram_backward_cpu(const Tensor& grad, const Tensor& x_maps,
                                             const std::optional<Tensor>& y_maps) {
  const Tensor x = flat_maps("gram_backward", "x", x_maps);
  const Tensor y = y_maps ? flat_maps("gram_backward", "y", *y_maps) : x;
  check_maps("gram_backward", x, y);
  check_sizes("gram_backward", "grad", grad, x, {x.size(0), x.size(1), y.size(1)});
  const ScalarType real = result_type(x.scalar_type());
  const Tensor g = contiguous_of(grad.scalar_type() == real ? grad : torch::stable::to(grad, real));
  const int64_t c1 = x.size(1), c2 = y.size(1), length = x.size(2);
  if (!y_maps)
    return {backward_side(x_maps, g, x, {c1, c1, length, true}, false), empty_for(x, {0})};
  return {backward_side(x_maps, g, y, {c1, c2, length, false}, false),
          backward_side(*y_maps, g, x, {c2, c1, length, false}, true)};
}

}  // namespace
}  // namespace kdops::gram

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("gram", TORCH_BOX(&kdops::gram::gram_cpu));
  m.impl("gram_backward", TORCH_BOX(&kdops::gram::gram_backward_cpu));
}
