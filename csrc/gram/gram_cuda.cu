// gram and gram_backward on CUDA: both are batched products with free strides (gram_kernels.cuh,
// gram_plan.cuh), so tensors are read where they lie.
#include "common/stream.h"
// stream.h first: it declares torch's CUDA shims weak
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/tensors.h"
#include "gram/flat_maps.h"
#include "gram/gram_plan.cuh"

namespace kdops {
namespace {

using gpu::GramOperand;
using gpu::GramProblem;

template <class T>
const T* data_of(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data_ptr());
}

// The matrices of a tensor (B, i, k), or (B, k, i) with `transposed`, as an operand.
template <class T>
GramOperand<T> operand(const Tensor& x, bool transposed = false) {
  const auto row = static_cast<unsigned>(x.stride(1)), depth = static_cast<unsigned>(x.stride(2));
  return {data_of<T>(x), x.stride(0), transposed ? depth : row, transposed ? row : depth};
}

// out (B, rows, *cols) = scale * a bT; out is contiguous.
template <class T>
void launch_product(const OnDevice& device, const char* op, const Tensor& out, GramOperand<T> a,
                    GramOperand<T> b, int64_t depth, bool symmetric, bool add_transpose,
                    double scale) {
  using A = gpu::Accum<T>;
  if (out.numel() == 0) return;
  GramProblem<T> p{};
  p.a = a, p.b = b;
  p.rows = static_cast<int>(out.size(1));
  p.cols = static_cast<int>(out.numel() / (out.size(0) * out.size(1)));
  p.depth = static_cast<int>(depth);
  p.symmetric = symmetric, p.add_transpose = add_transpose;
  p.scale = static_cast<A>(scale);
  p.out = static_cast<T*>(out.data_ptr());
  std::optional<Tensor> partial;
  gpu::for_gram_tile<T>(p.rows, p.cols, [&](auto tile) {
    using Tile = decltype(tile);
    const int64_t blocks = gpu::gram_plan<Tile>(p, out.size(0), device.multiprocessors());
    if (p.splits > 1) {
      const ScalarType dtype = sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float;
      partial = empty_for(out, {p.splits * p.split_size}, dtype);
      p.partial = static_cast<A*>(partial->data_ptr());
    }
    gpu::gram_product_kernel<T, Tile>
        <<<grid_of(op, blocks), Tile::kThreads, 0, device.stream()>>>(p);
  });
  check_launch(op);
  if (!partial) return;
  gpu::gram_reduce_kernel<T><<<grid_of(op, (p.split_size + 255) / 256), 256, 0, device.stream()>>>(
      p.partial, p.out, p.split_size, p.splits, p.scale);
  check_launch(op);
}

// Offsets inside one item are 32-bit numbers on the device.
void check_extent(const char* op, const char* name, const Tensor& x) {
  int64_t last = 0;
  for (int axis : {1, 2}) last += std::max<int64_t>(0, x.size(axis) - 1) * x.stride(axis);
  STD_TORCH_CHECK(last < INT32_MAX && x.size(1) * x.size(2) < INT32_MAX, op, ": one item of ", name,
                  " spans more than 2^31 elements, shape ", shape_of(x));
}

void check_on_device(const char* op, const Tensor& x, const Tensor& y) {
  check_maps(op, x, y);
  check_extent(op, "x", x);
  check_extent(op, "y", y);
}

Tensor gram_cuda(const Tensor& x_maps, const std::optional<Tensor>& y_maps, double scale) {
  const Tensor x = flat_maps("gram", "x", x_maps);
  const Tensor y = y_maps ? flat_maps("gram", "y", *y_maps) : x;
  check_on_device("gram", x, y);
  const OnDevice device(x);
  Tensor out = empty_for(x, {x.size(0), x.size(1), y.size(1)});
  check_extent("gram", "the result", out);
  for_storage_type<gpu::Half, gpu::BFloat16>("gram", x, [&](auto kind) {
    using T = decltype(kind);
    launch_product<T>(device, "gram", out, operand<T>(x), operand<T>(y), x.size(2), !y_maps, false,
                      scale);
  });
  return out;
}

// grad (B, C1, C2). gx = scale * grad y, or scale * (grad + gradT) x without y; gy = scale * gradT
// x.
std::tuple<Tensor, Tensor> gram_backward_cuda(const Tensor& grad, const Tensor& x_maps,
                                              const std::optional<Tensor>& y_maps, double scale) {
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
  Tensor gx = empty_for(x, sizes_of(x_maps));
  Tensor gy = symmetric ? empty_for(x, {0}) : empty_for(y, sizes_of(*y_maps));
  for_storage_type<gpu::Half, gpu::BFloat16>(op, x, [&](auto kind) {
    using T = decltype(kind);
    launch_product<T>(device, op, gx, operand<T>(grad), operand<T>(y, true), y.size(1), false,
                      symmetric, scale);
    if (!symmetric)
      launch_product<T>(device, op, gy, operand<T>(grad, true), operand<T>(x, true), x.size(1),
                        false, false, scale);
  });
  return {gx, gy};
}

}  // namespace
}  // namespace kdops

STABLE_TORCH_LIBRARY_IMPL(kdops, CUDA, m) {
  m.impl("gram", TORCH_BOX(&kdops::gram_cuda));
  m.impl("gram_backward", TORCH_BOX(&kdops::gram_backward_cuda));
}
