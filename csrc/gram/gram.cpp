// Schemas of the gram room.
//   gram           out (B, C1, C2) = scale * x yT, x (B, C1, L), y (B, C2, L) or absent (y = x)
//   gram_backward  cotangents of x and y for grad (B, C1, C2); with y absent the second is empty
// Strides are free: kernels read channels_last maps where they lie. Results are contiguous and of
// the input dtype; half types accumulate in float.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def("gram(Tensor x, Tensor? y, float scale) -> Tensor");
  m.def("gram_backward(Tensor grad, Tensor x, Tensor? y, float scale) -> (Tensor, Tensor)");
}
