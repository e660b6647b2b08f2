// Schemas of the gram room.
//   gram           out (B, C1, C2) = x yT / positions, x (B, C1, *S), y (B, C2, *S) or absent
//                  (y = x)
//   gram_backward  cotangents of x and y for grad (B, C1, C2); with y absent the second is empty
//   gram_loss      loss and cotangents of x1, x2 for the mean over the batch of f(D),
//                  D = gram(x1, x2) - gram(y1, y2), x2 and y2 absent: equal to x1 and y1.
//                  f by variant: 0 half the sum of squares, 1 the mean of squares, 2 the sum of
//                  column norms. positions: through length x length products (equal lengths,
//                  squares). gradients = False returns empty cotangents.
//   nst_loss       loss and cotangent of student for the mean over the batch of
//                  |XT X / C_S - YT Y / C_T|^2, X and Y the channels of student (B, C_S, L) and
//                  teacher (B, C_T, L) as unit rows (zero rows stay zero)
// Means and positions are the op's own: as arguments they would be baked into a traced graph.
// Maps of gram and gram_loss have one position dimension or more. Strides are free: kernels read
// channels_last maps where they lie. Results are contiguous and of the input dtype; half types
// accumulate in float.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def("gram(Tensor x, Tensor? y) -> Tensor");
  m.def("gram_backward(Tensor grad, Tensor x, Tensor? y) -> (Tensor, Tensor)");
  m.def(
      "gram_loss(Tensor x1, Tensor? x2, Tensor y1, Tensor? y2, int variant, bool positions, "
      "bool gradients) -> (Tensor, Tensor, Tensor)");
  m.def(
      "nst_loss(Tensor student, Tensor teacher, bool positions, bool gradients) -> (Tensor, "
      "Tensor)");
}
