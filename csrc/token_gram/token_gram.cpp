// Schema of the token_gram room.
//   gram_anchoring_loss  (loss, gradient of student) of sum_b w_b |G_S - G_T|^2 over the images b,
//                        G = X XT of the unit tokens; student (B, N, D_S), teacher (B, N, D_T),
//                        weights (B,) or absent (1 / (B N^2)); negatives: 0 keeps them, 1 counts
//                        those of both as zero, 2 those of the teacher
// Strides of inputs are free. The gradient is empty when `gradients` is false.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def(
      "gram_anchoring_loss(Tensor student, Tensor teacher, Tensor? weights, int negatives, "
      "bool gradients) -> (Tensor, Tensor)");
}
