// Schemas of the rbf room.
//   svd_rbf_loss  (loss, gradient of student_front, gradient of student_back) of
//                 scale * sum (K_S - K_T)^2, K[b, c, m, n] = exp(-(back[b, m, c] -
//                 front[b, n, c])^2 / beta); fronts (B, D_front, k), backs (B, D_back, k) with any
//                 strides. The gradients are empty when `gradients` is false.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def(
      "svd_rbf_loss(Tensor student_front, Tensor student_back, Tensor teacher_front, "
      "Tensor teacher_back, float beta, float scale, bool gradients) -> (Tensor, Tensor, Tensor)");
}
