// Schemas of the align room.
//   align_vectors           student [B, D, K'] and teacher [B, D, k] to aligned [B, D, k] and choice
//                           [B, k], int64: 1 + the index of the student vector, negative if turned
//                           round
//   align_vectors_backward  the student's gradient [B, D, K'], column by column
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def("align_vectors(Tensor student, Tensor teacher) -> (Tensor, Tensor)");
  m.def("align_vectors_backward(Tensor grad, Tensor choice, int candidates) -> Tensor");
}
