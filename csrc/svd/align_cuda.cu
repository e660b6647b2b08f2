// align_vectors and its gradient on CUDA: one launch each, a block per sample, no synchronisation.
#include "common/stream.h"
// stream.h first: it declares torch's CUDA shims weak
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "svd/align_check.h"
#include "svd/align_kernels.cuh"

namespace kdops {
namespace {

std::tuple<Tensor, Tensor> align_vectors_cuda(const Tensor& student, const Tensor& teacher) {
  const char* op = "align_vectors";
  const AlignSizes sizes = align_sizes(op, student, teacher);
  Tensor aligned = empty_for(student, {sizes.batch, sizes.length, sizes.count});
  Tensor choice = empty_for(student, {sizes.batch, sizes.count}, ScalarType::Long);
  if (choice.numel() == 0) return {aligned, choice};
  const OnDevice device(student);
  for_real_type(op, student, [&]<class T>(T) {
    const Alignment<T> args{sizes, vectors_of<T>(student), vectors_of<T>(teacher),
                            pointer<T>(aligned), pointer<int64_t>(choice)};
    gpu::align_vectors_kernel<T>
        <<<grid_of(op, sizes.batch), gpu::kAlignThreads, 0, device.stream()>>>(args);
  });
  check_launch(op);
  return {aligned, choice};
}

Tensor align_vectors_backward_cuda(const Tensor& grad, const Tensor& choice, int64_t candidates) {
  const char* op = "align_vectors_backward";
  const AlignSizes sizes = align_sizes(op, grad, choice, candidates);
  const Tensor chosen = contiguous_of(choice);
  Tensor student = empty_for(grad, {sizes.batch, candidates, sizes.length});
  if (student.numel() > 0) {
    const OnDevice device(grad);
    for_real_type(op, grad, [&]<class T>(T) {
      const AlignmentGradient<T> args{sizes, vectors_of<T>(grad), pointer<int64_t>(chosen),
                                      pointer<T>(student)};
      gpu::align_vectors_backward_kernel<T>
          <<<grid_of(op, sizes.batch), gpu::kAlignThreads, 0, device.stream()>>>(args);
    });
    check_launch(op);
  }
  return torch::stable::transpose(student, -2, -1);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(kdops, CUDA, m) {
  m.impl("align_vectors", TORCH_BOX(&align_vectors_cuda));
  m.impl("align_vectors_backward", TORCH_BOX(&align_vectors_backward_cuda));
}

}  // namespace kdops
