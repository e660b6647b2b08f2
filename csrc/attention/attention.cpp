// Schemas of the attention room.
//   attention_map           out (B, L) = sum over c of |x|^p, or (largest) the maximum; x (B, C, L)
//   attention_map_backward  cotangent of x for grad (B, L), with the strides of x where it is dense
//   attention_loss          (sum over the batch of coefficient * f, its derivative (B, L) by the
//                           student's attention map): f is the sum of squares (or, paper, the norm)
//                           of the difference of the maps, each divided by its norm; student and
//                           teacher (B, C, L), the channels may differ
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def("attention_map(Tensor x, float p, bool largest) -> Tensor");
  m.def("attention_map_backward(Tensor grad, Tensor x, float p, bool largest) -> Tensor");
  m.def(
      "attention_loss(Tensor student, Tensor teacher, float p, bool largest, bool paper, "
      "float coefficient) -> (Tensor, Tensor)");
}
