// Schemas of the attention room.
//   attention_map           out (B, L) = sum over c of |x|^p, or (largest) the maximum; x (B, C, L)
//   attention_map_backward  cotangent of x for grad (B, L), with the strides of x where it is dense
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def("attention_map(Tensor x, float p, bool largest) -> Tensor");
  m.def("attention_map_backward(Tensor grad, Tensor x, float p, bool largest) -> Tensor");
}
