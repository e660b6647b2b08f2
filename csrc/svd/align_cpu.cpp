// CPU glue of align_vectors and its gradient: stable tensors to pointers, samples over the threads.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/parallel.h"
#include "svd/align_check.h"
#include "svd/align_simd.h"

namespace kdops {
namespace {

std::tuple<Tensor, Tensor> align_vectors_cpu(const Tensor& student, const Tensor& teacher) {
  const char* op = "align_vectors";
  const AlignSizes sizes = align_sizes(op, student, teacher);
  Tensor aligned = empty_for(student, {sizes.batch, sizes.length, sizes.count});
  Tensor choice = empty_for(student, {sizes.batch, sizes.count}, ScalarType::Long);
  const double flops = 2.0 * sizes.length * (sizes.candidates + 1) * (sizes.count + 1);
  for_real_type(op, student, [&]<class T>(T) {
    const Alignment<T> problem{sizes, vectors_of<T>(student), vectors_of<T>(teacher),
                               pointer<T>(aligned), pointer<int64_t>(choice)};
    parallel_for(sizes.batch, flops, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(align_vectors<T>)(problem, begin, end);
    });
  });
  return {aligned, choice};
}

Tensor align_vectors_backward_cpu(const Tensor& grad, const Tensor& choice, int64_t candidates) {
  const char* op = "align_vectors_backward";
  const AlignSizes sizes = align_sizes(op, grad, choice, candidates);
  const Tensor chosen = contiguous_of(choice);
  Tensor student = empty_for(grad, {sizes.batch, candidates, sizes.length});
  const double flops = 2.0 * sizes.length * (candidates + sizes.count) + candidates * sizes.count;
  for_real_type(op, grad, [&]<class T>(T) {
    const AlignmentGradient<T> problem{sizes, vectors_of<T>(grad), pointer<int64_t>(chosen),
                                       pointer<T>(student)};
    parallel_for(sizes.batch, flops, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(align_vectors_backward<T>)(problem, begin, end);
    });
  });
  return torch::stable::transpose(student, -2, -1);
}

}  // namespace
}  // namespace kdops

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("align_vectors", TORCH_BOX(&kdops::align_vectors_cpu));
  m.impl("align_vectors_backward", TORCH_BOX(&kdops::align_vectors_backward_cpu));
}
