// Launches of the batched products of the gram room (gram_kernels.cuh, gram_plan.cuh) on tensors
// that are read where they lie. Included by gram_cuda.cu and loss_cuda.cu, after
// common/torch/stream.h.
#pragma once

#include <algorithm>
#include <optional>

#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/stream.h"
#include "common/torch/tensors.h"
#include "gram/gram_plan.cuh"

namespace kdops::gram {

using gpu::GramOperand;
using gpu::GramProblem;

// The matrices of a tensor (B, i, k), or (B, k, i) with `transposed`, as an operand.
template <class T>
GramOperand<T> operand(const Tensor& x, bool transposed = false) {
  const auto row = static_cast<unsigned>(x.stride(1)), depth = static_cast<unsigned>(x.stride(2));
  return {pointer<T>(x), x.stride(0), transposed ? depth : row, transposed ? row : depth};
}

// scale * a bT; symmetric and add_transpose as in GramProblem.
template <class T>
struct Product {
  GramOperand<T> a, b;
  int64_t depth;
  double scale = 1;
  bool symmetric = false, add_transpose = false;
};

// out (B, rows, *cols), contiguous, becomes the product.
template <class T>
void launch_product(const OnDevice& device, const char* op, const Tensor& out,
                    const Product<T>& product) {
  using A = Accum<T>;
  if (out.numel() == 0) return;
  GramProblem<T> p{};
  p.a = product.a, p.b = product.b;
  p.rows = static_cast<int>(out.size(1));
  p.cols = static_cast<int>(out.numel() / (out.size(0) * out.size(1)));
  p.depth = static_cast<int>(product.depth);
  p.symmetric = product.symmetric, p.add_transpose = product.add_transpose;
  p.scale = static_cast<A>(product.scale);
  p.out = pointer<T>(out);
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
inline void check_extent(const char* op, const char* name, const Tensor& x) {
  int64_t last = 0;
  for (int axis : {1, 2}) last += std::max<int64_t>(0, x.size(axis) - 1) * x.stride(axis);
  STD_TORCH_CHECK(last < INT32_MAX && x.size(1) * x.size(2) < INT32_MAX, op, ": one item of ", name,
                  " spans more than 2^31 elements, shape ", shape_of(x));
}

}  // namespace kdops::gram
