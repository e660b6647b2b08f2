// Schemas of the attention room.
//   attention_map           out (B, L) = sum over c of |x|^p, or (largest) the maximum; x (B, C, L)
//   attention_map_backward  cotangent of x for grad (B, L), with the strides of x where it is dense
//   attention_loss          (f summed over the batch, its derivative (B, L) by the attention map of
//                           unit * student, unit (B)): f is the sum of squares by batch and
//                           positions (or, paper, the norm by 2 batch) of the difference of the
//                           maps, each divided by its norm; student and teacher (B, C, L), the
//                           channels may differ. unit is 1 but where the powers of a map would
//                           leave the range of its type: there it is a power of two that keeps them
//   attention_loss_backward cotangent of student for pull (B, L), the second result times a number
//
// CPU glue of the attention room: stable tensors to pointers and strides, the batch over threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "attention/attention_simd.h"
#include "common/simd/scratch.h"
#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/parallel.h"
#include "common/torch/tensors.h"

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def("attention_map(Tensor x, float p, bool largest) -> Tensor");
  m.def("attention_map_backward(Tensor grad, Tensor x, float p, bool largest) -> Tensor");
  m.def(
      "attention_loss(Tensor student, Tensor teacher, float p, bool largest, bool paper) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "attention_loss_backward(Tensor pull, Tensor unit, Tensor student, float p, bool largest) "
      "-> Tensor");
}

namespace kdops::attention {
namespace {

// Positions or channels contiguous, which the kernels read where they lie; else a copy.
Tensor readable(const Tensor& x) {
  const bool readable = x.stride(2) == 1 || x.stride(1) == 1;
  return readable ? x : contiguous_of(x);
}

template <class T>
AttentionMaps<T> maps_of(const Tensor& x) {
  return {pointer<T>(x), x.stride(0), x.stride(1), x.stride(2), x.size(1), x.size(2)};
}

Tensor attention_map_cpu(const Tensor& input, double p, bool largest) {
  const char* op = "attention_map";
  check_dim(op, "x", input, 3);
  const Tensor x = readable(input);
  Tensor out = empty_for(x, {x.size(0), x.size(2)});
  for_real_type(op, x, [&]<class T>(T) {
    parallel_for(x.size(0), 4.0 * x.size(1) * x.size(2), KDOPS_BEST(attention_forward<T>),
                 maps_of<T>(x), static_cast<T>(p), largest, pointer<T>(out));
  });
  return out;
}

// unit (B), or none: all one.
Tensor backward(const char* op, const Tensor& grad, const std::optional<Tensor>& unit,
                const Tensor& input, double p, bool largest) {
  check_sizes(op, "grad", grad, input, {input.size(0), input.size(2)});
  const Tensor x = readable(input);
  const Tensor g = contiguous_of(grad);
  // as x lies: positions innermost, or channels innermost
  const int64_t batch = x.size(0), channels = x.size(1), length = x.size(2);
  Tensor gx = x.stride(2) == 1
                  ? empty_for(x, {batch, channels, length})
                  : torch::stable::transpose(empty_for(x, {batch, length, channels}), 1, 2);
  for_real_type(op, x, [&]<class T>(T) {
    const AttentionGradient<T> problem{.x = maps_of<T>(x),
                                       .p = static_cast<T>(p),
                                       .largest = largest,
                                       .grad = pointer<T>(g),
                                       .unit = pointer_or_null<T>(unit),
                                       .gx = pointer<T>(gx),
                                       .gx_batch = gx.stride(0),
                                       .gx_channel = gx.stride(1),
                                       .gx_position = gx.stride(2)};
    parallel_for(batch, 8.0 * channels * length, KDOPS_BEST(attention_backward<T>), problem);
  });
  return gx;
}

Tensor attention_map_backward_cpu(const Tensor& grad, const Tensor& x, double p, bool largest) {
  const char* op = "attention_map_backward";
  check_dim(op, "x", x, 3);
  return backward(op, grad, std::nullopt, x, p, largest);
}

Tensor attention_loss_backward_cpu(const Tensor& pull, const Tensor& unit, const Tensor& student,
                                   double p, bool largest) {
  const char* op = "attention_loss_backward";
  check_dim(op, "student", student, 3);
  check_sizes(op, "unit", unit, student, {student.size(0)});
  return backward(op, pull, contiguous_of(unit), student, p, largest);
}

using Loss = std::tuple<Tensor, Tensor, Tensor>;

template <class T>
Loss loss_of(const Tensor& student, const Tensor& teacher, double p, bool largest, bool paper) {
  const int64_t batch = student.size(0), length = student.size(2);
  const auto items = static_cast<double>(std::max<int64_t>(batch, 1));
  const auto positions = static_cast<double>(std::max<int64_t>(length, 1));
  Tensor pull = empty_for(student, {batch, length});
  Tensor unit = empty_for(student, {batch});
  Scratch<T> losses(batch);
  const AttentionLoss<T> problem{
      .student = maps_of<T>(student),
      .teacher = maps_of<T>(teacher),
      .p = static_cast<T>(p),
      .largest = largest,
      .paper = paper,
      .coefficient = static_cast<T>(paper ? 1 / (2 * items) : 1 / (items * positions)),
      .loss = losses.get(),
      .pull = pointer<T>(pull),
      .unit = pointer<T>(unit)};
  const double flops = 4.0 * (student.size(1) + teacher.size(1)) * length;
  parallel_for(batch, flops, KDOPS_BEST(attention_loss<T>), problem);
  return {scalar_for<T>(student, ordered_sum(losses.get(), batch)), pull, unit};
}

Loss attention_loss_cpu(const Tensor& student, const Tensor& teacher, double p, bool largest,
                        bool paper) {
  const char* op = "attention_loss";
  check_dim(op, "student", student, 3);
  check_sizes(op, "teacher", teacher, student, {student.size(0), kAnySize, student.size(2)});
  const Tensor s = readable(student), t = readable(teacher);
  return for_real_type(op, s, [&]<class T>(T) { return loss_of<T>(s, t, p, largest, paper); });
}

}  // namespace
}  // namespace kdops::attention

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("attention_map", TORCH_BOX(&kdops::attention::attention_map_cpu));
  m.impl("attention_map_backward", TORCH_BOX(&kdops::attention::attention_map_backward_cpu));
  m.impl("attention_loss", TORCH_BOX(&kdops::attention::attention_loss_cpu));
  m.impl("attention_loss_backward", TORCH_BOX(&kdops::attention::attention_loss_backward_cpu));
}
