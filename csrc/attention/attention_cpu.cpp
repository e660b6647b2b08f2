// CPU glue of the attention room: stable tensors to pointers and strides, the batch over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "attention/attention_simd.h"
#include "common/simd/scratch.h"
#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/parallel.h"
#include "common/torch/tensors.h"

namespace kdops::attention {
namespace {

// Positions or channels contiguous, which the kernels read where they lie; else a copy.
Tensor readable(const Tensor& x) {
  const bool readable = x.stride(2) == 1 || x.stride(1) == 1;
  return readable ? x : contiguous_of(x);
}

template <class T>
AttentionMaps<T> maps_of(const Tensor& x) {
  return {static_cast<const T*>(x.data_ptr()),
          x.stride(0),
          x.stride(1),
          x.stride(2),
          x.size(1),
          x.size(2)};
}

template <class T>
void forward(const Tensor& x, double p, bool largest, Tensor& out) {
  T* target = static_cast<T*>(out.data_ptr());
  const AttentionMaps<T> maps = maps_of<T>(x);
  parallel_for(x.size(0), 4.0 * x.size(1) * x.size(2), [&](int64_t begin, int64_t end) {
    KDOPS_BEST(attention_forward<T>)(maps, static_cast<T>(p), largest, target, begin, end);
  });
}

template <class T>
void backward(const Tensor& grad, const Tensor& x, double p, bool largest, Tensor& gx) {
  const T* g = static_cast<const T*>(grad.data_ptr());
  T* target = static_cast<T*>(gx.data_ptr());
  const AttentionMaps<T> maps = maps_of<T>(x);
  const int64_t batch = gx.stride(0), channel = gx.stride(1), position = gx.stride(2);
  parallel_for(x.size(0), 8.0 * x.size(1) * x.size(2), [&](int64_t begin, int64_t end) {
    KDOPS_BEST(attention_backward<T>)
    (maps, static_cast<T>(p), largest, g, target, batch, channel, position, begin, end);
  });
}

Tensor attention_map_cpu(const Tensor& input, double p, bool largest) {
  check_dim("attention_map", "x", input, 3);
  const Tensor x = readable(input);
  Tensor out = empty_for(x, {x.size(0), x.size(2)});
  for_real_type("attention_map", x,
                [&](auto real) { forward<decltype(real)>(x, p, largest, out); });
  return out;
}

Tensor attention_map_backward_cpu(const Tensor& grad, const Tensor& input, double p, bool largest) {
  const char* op = "attention_map_backward";
  check_dim(op, "x", input, 3);
  check_dim(op, "grad", grad, 2);
  check_like(op, "grad", grad, input);
  check_size(op, "grad", grad, 0, input.size(0));
  check_size(op, "grad", grad, 1, input.size(2));
  const Tensor x = readable(input);
  const Tensor g = contiguous_of(grad);
  // as x lies: positions innermost, or channels innermost
  const int64_t batch = x.size(0), channels = x.size(1), length = x.size(2);
  Tensor gx = x.stride(2) == 1
                  ? empty_for(x, {batch, channels, length})
                  : torch::stable::transpose(empty_for(x, {batch, length, channels}), 1, 2);
  for_real_type(op, x, [&](auto real) { backward<decltype(real)>(g, x, p, largest, gx); });
  return gx;
}

template <class T>
std::tuple<Tensor, Tensor> loss_of(const Tensor& student, const Tensor& teacher, double p,
                                   bool largest, bool paper, double coefficient) {
  const int64_t batch = student.size(0);
  Tensor loss = empty_for(student, {});
  Tensor pull = empty_for(student, {batch, student.size(2)});
  Scratch<T> items(batch);
  const AttentionLoss<T> problem{maps_of<T>(student),
                                 maps_of<T>(teacher),
                                 static_cast<T>(p),
                                 largest,
                                 paper,
                                 static_cast<T>(coefficient),
                                 items.get(),
                                 static_cast<T*>(pull.data_ptr())};
  const double flops = 4.0 * (student.size(1) + teacher.size(1)) * student.size(2);
  parallel_for(batch, flops, [&](int64_t begin, int64_t end) {
    KDOPS_BEST(attention_loss<T>)(problem, begin, end);
  });
  *pointer<T>(loss) = static_cast<T>(ordered_sum(items.get(), batch));
  return {loss, pull};
}

std::tuple<Tensor, Tensor> attention_loss_cpu(const Tensor& student, const Tensor& teacher,
                                              double p, bool largest, bool paper,
                                              double coefficient) {
  const char* op = "attention_loss";
  check_dim(op, "student", student, 3);
  check_dim(op, "teacher", teacher, 3);
  check_like(op, "teacher", teacher, student);
  check_size(op, "teacher", teacher, 0, student.size(0));
  check_size(op, "teacher", teacher, 2, student.size(2));
  const Tensor s = readable(student), t = readable(teacher);
  return for_real_type(op, s, [&](auto real) {
    return loss_of<decltype(real)>(s, t, p, largest, paper, coefficient);
  });
}

}  // namespace
}  // namespace kdops::attention

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("attention_map", TORCH_BOX(&kdops::attention::attention_map_cpu));
  m.impl("attention_map_backward", TORCH_BOX(&kdops::attention::attention_map_backward_cpu));
  m.impl("attention_loss", TORCH_BOX(&kdops::attention::attention_loss_cpu));
}
