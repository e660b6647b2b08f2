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
#include <torch/csrc/stable/library.h>

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
