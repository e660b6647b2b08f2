// align_vectors and its gradient on CUDA: one launch each, a block per sample, no synchronisation.
#include "common/torch/stream.h"
// stream.h first: it declares torch's CUDA shims weak
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "align/align_check.h"
#include "align/align_kernels.cuh"

namespace kdops::align {
namespace {

std::tuple<Tensor, Tensor> align_vectors_cuda(const Tensor& student, const Tensor& teacher) {
  return align_vectors_by(student, teacher, [&]<class T>(const Alignment<T>& args) {
    const OnDevice device(student);
    gpu::align_vectors_kernel<T>
        <<<grid_of("align_vectors", args.sizes.batch), gpu::kAlignThreads, 0, device.stream()>>>(
            args);
    check_launch("align_vectors");
  });
}

Tensor align_vectors_backward_cuda(const Tensor& grad, const Tensor& choice, int64_t candidates) {
  const char* op = "align_vectors_backward";
  return align_vectors_backward_by(
      grad, choice, candidates, [&]<class T>(const AlignmentGradient<T>& args) {
        const OnDevice device(grad);
        gpu::align_vectors_backward_kernel<T>
            <<<grid_of(op, args.sizes.batch), gpu::kAlignThreads, 0, device.stream()>>>(args);
        check_launch(op);
      });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(kdops, CUDA, m) {
  m.impl("align_vectors", TORCH_BOX(&align_vectors_cuda));
  m.impl("align_vectors_backward", TORCH_BOX(&align_vectors_backward_cuda));
}

}  // namespace kdops::align
