// Schemas of the gram room.
//   gram           out (B, C1, C2) = scale * x yT, x (B, C1, *S), y (B, C2, *S) or absent (y = x)
//   gram_backward  cotangents of x and y for grad (B, C1, C2); with y absent the second is empty
//   gram_loss      loss and cotangents of x1, x2 for coefficient * f(D),
//                  D = scale_s x1 x2T - scale_t y1 y2T,
//                  f the sum of squares or (columns) of column norms; x2 and y2 absent: equal to x1
//                  and y1. positions: through length x length products (equal lengths and scales,
//                  squares). gradients = False returns empty cotangents.
//   nst_loss       loss and cotangent of student for coefficient * |XT X / C_S - YT Y / C_T|^2
//                  summed over the batch, X and Y the channels of student (B, C_S, L) and teacher
//                  (B, C_T, L) as unit rows (a row of norm zero, or below the normal range, is zero)
// Maps of gram and gram_loss have one position dimension or more. Strides are free: kernels read
// channels_last maps where they lie. Results are contiguous and of the input dtype; half types
// accumulate in float.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def("gram(Tensor x, Tensor? y, float scale) -> Tensor");
  m.def("gram_backward(Tensor grad, Tensor x, Tensor? y, float scale) -> (Tensor, Tensor)");
  m.def(
      "gram_loss(Tensor x1, Tensor? x2, Tensor y1, Tensor? y2, float scale_s, float scale_t, "
      "float coefficient, bool columns, bool positions, bool gradients) -> (Tensor, Tensor, "
      "Tensor)");
  m.def(
      "nst_loss(Tensor student, Tensor teacher, float coefficient, bool positions, bool gradients) "
      "-> (Tensor, Tensor)");
}
