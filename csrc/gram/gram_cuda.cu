// gram and gram_backward on CUDA: both are batched products with free strides (gram_launch.cuh), so
// tensors are read where they lie.
#include "common/torch/stream.h"
// stream.h first: it declares torch's CUDA shims weak
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/tensors.h"
#include "gram/flat_maps.h"
#include "gram/gram_launch.cuh"

namespace kdops::gram {
namespace {

void check_on_device(const char* op, const Tensor& x, const Tensor& y) {
  check_maps(op, x, y);
  check_extent(op, "x", x);
  check_extent(op, "y", y);
}

Tensor gram_cuda(const Tensor& x_maps, const std::optional<Tensor>& y_maps) {
  const Tensor x = flat_maps("gram", "x", x_maps);
  const Tensor y = y_maps ? flat_maps("gram", "y", *y_maps) : x;
  check_on_device("gram", x, y);
  const OnDevice device(x);
  Tensor out = empty_for(x, {x.size(0), x.size(1), y.size(1)});
  check_extent("gram", "the result", out);
  for_storage_type<Half, BFloat16>("gram", x, [&](auto kind) {
    using T = decltype(kind);
    launch_product<T>(device, "gram", out,
                      {.a = operand<T>(x),
                       .b = operand<T>(y),
                       .depth = x.size(2),
                       .scale = inverse_of(x.size(2)),
                       .symmetric = !y_maps});
  });
  return out;
}

// grad (B, C1, C2). By the number of positions: gx = grad y, or (grad + gradT) x without y;
// gy = gradT x.
std::tuple<Tensor, Tensor> gram_backward_cuda(const Tensor& grad, const Tensor& x_maps,
                                              const std::optional<Tensor>& y_maps) {
  const char* op = "gram_backward";
  const Tensor x = flat_maps(op, "x", x_maps);
  const Tensor y = y_maps ? flat_maps(op, "y", *y_maps) : x;
  check_on_device(op, x, y);
  check_dim(op, "grad", grad, 3);
  check_like(op, "grad", grad, x);
  check_size(op, "grad", grad, 0, x.size(0));
  check_size(op, "grad", grad, 1, x.size(1));
  check_size(op, "grad", grad, 2, y.size(1));
  check_extent(op, "grad", grad);
  const OnDevice device(x);
  const bool symmetric = !y_maps;
  const double scale = inverse_of(x.size(2));
  Tensor gx = empty_for(x, x_maps.sizes());
  Tensor gy = symmetric ? empty_for(x, {0}) : empty_for(y, y_maps->sizes());
  for_storage_type<Half, BFloat16>(op, x, [&](auto kind) {
    using T = decltype(kind);
    launch_product<T>(device, op, gx,
                      {.a = operand<T>(grad),
                       .b = operand<T>(y, true),
                       .depth = y.size(1),
                       .scale = scale,
                       .add_transpose = symmetric});
    if (symmetric) return;
    launch_product<T>(device, op, gy,
                      {.a = operand<T>(grad, true),
                       .b = operand<T>(x, true),
                       .depth = x.size(1),
                       .scale = scale});
  });
  return {gx, gy};
}

}  // namespace
}  // namespace kdops::gram

STABLE_TORCH_LIBRARY_IMPL(kdops, CUDA, m) {
  m.impl("gram", TORCH_BOX(&kdops::gram::gram_cuda));
  m.impl("gram_backward", TORCH_BOX(&kdops::gram::gram_backward_cuda));
}
