// Schemas of the similarity_kl room.
//   similarity_kl  (loss, gradient of student, gradient of keys): the mean over rows i of
//                  KL(p_T,i || p_S,i), p_i the softmax over j of scale <x_i, y_j>, of unit rows where
//                  `cosine`. student (B, N, D), keys (B, M, D), teacher (B, N, D'),
//                  teacher_keys (B, M, D'); without keys the rows meet each other, or without
//                  `self_pairs` all but themselves. mask (B, N), bool: the rows that count.
//   pkt            (loss, gradient of student): the mean over all pairs of
//                  p_T log((p_T + epsilon) / (p_S + epsilon)), p = c / its row's sum,
//                  c = (<x_i, x_j> + 1) / 2 of rows x / (|x| + 1e-7); student (N, D),
//                  teacher (N, D')
// Strides of inputs are free. Gradients are empty where `gradients` or `of_keys` is false.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def(
      "similarity_kl(Tensor student, Tensor? keys, Tensor teacher, Tensor? teacher_keys, "
      "Tensor? mask, float student_scale, float teacher_scale, bool cosine, bool self_pairs, "
      "bool gradients, bool of_keys) -> (Tensor, Tensor, Tensor)");
  m.def("pkt(Tensor student, Tensor teacher, float epsilon, bool gradients) -> (Tensor, Tensor)");
}
