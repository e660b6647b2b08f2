// Schemas of the align room.
//   align_vectors           student [B, D, K'] and teacher [B, D, k] to aligned [B, D, k] and choice
//                           [B, k], int64: 1 + the index of the student vector, negative if turned
//                           round
//   align_vectors_backward  the student's gradient [B, D, K'], column by column
//
// CPU glue of align_vectors and its gradient: stable tensors to pointers, samples over the threads.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "align/align_check.h"
#include "align/align_simd.h"
#include "common/torch/parallel.h"

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def("align_vectors(Tensor student, Tensor teacher) -> (Tensor, Tensor)");
  m.def("align_vectors_backward(Tensor grad, Tensor choice, int candidates) -> Tensor");
}

namespace kdops::align {
namespace {

std::tuple<Tensor, Tensor> align_vectors_cpu(const Tensor& student, const Tensor& teacher) {
  return align_vectors_by(student, teacher, []<class T>(const Alignment<T>& problem) {
    const auto [batch, length, candidates, count] = problem.sizes;
    const double flops = 2.0 * length * (candidates + 1) * (count + 1);
    parallel_for(batch, flops, KDOPS_BEST(align_vectors<T>), problem);
  });
}

Tensor align_vectors_backward_cpu(const Tensor& grad, const Tensor& choice, int64_t candidates) {
  const auto run = []<class T>(const AlignmentGradient<T>& problem) {
    const auto [batch, length, rows, count] = problem.sizes;
    const double flops = 2.0 * length * (rows + count) + rows * count;
    parallel_for(batch, flops, KDOPS_BEST(align_vectors_backward<T>), problem);
  };
  return align_vectors_backward_by(grad, choice, candidates, run);
}

}  // namespace
}  // namespace kdops::align

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("align_vectors", TORCH_BOX(&kdops::align::align_vectors_cpu));
  m.impl("align_vectors_backward", TORCH_BOX(&kdops::align::align_vectors_backward_cpu));
}
