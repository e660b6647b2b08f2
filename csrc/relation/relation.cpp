// Schemas of the relation room. Rows are float or double (the Python layer widens half types).
//   rkd_distance, rkd_angle, similarity: student (N, D), teacher (N, D') -> (loss, dL/dstudent);
//     the gradient is empty unless want_grad
//   pairwise_distance, pairwise_cosine: x (B, N, D), y (B, M, D) or absent (y = x) -> (B, N, M)
//   pairwise_angle: x (N, D) -> (N, N, N)
//   *_backward: cotangents of x and y; with y absent the second is empty. That of the distance
//     takes the op's result as well.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def("rkd_distance(Tensor student, Tensor teacher, bool want_grad) -> (Tensor, Tensor)");
  m.def("rkd_angle(Tensor student, Tensor teacher, bool want_grad) -> (Tensor, Tensor)");
  m.def("similarity(Tensor student, Tensor teacher, bool want_grad) -> (Tensor, Tensor)");
  m.def("pairwise_distance(Tensor x, Tensor? y, bool squared) -> Tensor");
  m.def(
      "pairwise_distance_backward(Tensor grad, Tensor x, Tensor? y, bool squared, Tensor out) "
      "-> (Tensor, Tensor)");
  m.def("pairwise_cosine(Tensor x, Tensor? y) -> Tensor");
  m.def("pairwise_cosine_backward(Tensor grad, Tensor x, Tensor? y) -> (Tensor, Tensor)");
  m.def("pairwise_angle(Tensor x) -> Tensor");
  m.def("pairwise_angle_backward(Tensor grad, Tensor x) -> Tensor");
}
