// Schemas of the rbf room.
//   rbf_affinity           K (B, N, M) = exp(-gamma |x_i - y_j|^2), x (B, N, D), y (B, M, D) or
//                          absent (y = x), gamma (B,) or absent (the number `value`)
//   rbf_affinity_backward  cotangents of x, y and gamma; empty for those that are absent
//   rbf_affinity_loss      (loss, gradient of student, gradient of gamma) of mean (K_S - K_T)^2,
//                          student (N, D_S), teacher (N, D_T), gamma () or absent
//   svd_rbf_loss           (loss, gradient of student_front, gradient of student_back) of the sum of
//                          (K_S - K_T)^2 by B (variant 0), alone (1) or times sqrt(k) / 2 (2),
//                          K[b, c, m, n] = exp(-(back[b, m, c] - front[b, n, c])^2 / beta);
//                          fronts (B, D_front, k), backs (B, D_back, k)
// Strides of inputs are free. The gradients of a loss are empty when `gradients` is false.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def("rbf_affinity(Tensor x, Tensor? y, Tensor? gamma, float value) -> Tensor");
  m.def(
      "rbf_affinity_backward(Tensor grad, Tensor x, Tensor? y, Tensor? gamma, float value, "
      "Tensor k) -> (Tensor, Tensor, Tensor)");
  m.def(
      "rbf_affinity_loss(Tensor student, Tensor? gamma, Tensor teacher, float value, "
      "bool gradients) -> (Tensor, Tensor, Tensor)");
  m.def(
      "svd_rbf_loss(Tensor student_front, Tensor student_back, Tensor teacher_front, "
      "Tensor teacher_back, float beta, int variant, bool gradients) -> (Tensor, Tensor, Tensor)");
}
