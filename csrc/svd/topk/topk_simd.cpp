// The top-k SVD for one instruction set (isa.h): the entry points of topk_simd.h.
#include "svd/topk/topk_simd.h"

#include "svd/topk/cpu/forward.h"
#include "svd/topk/cpu/gradient.h"
#include "svd/topk/cpu/large_forward.h"
#include "svd/topk/cpu/large_gradient.h"

namespace kdops::svd::KDOPS_ISA {

template <class T>
void svd_topk_forward(const TopkForwardProblem<T>& problem, int64_t begin, int64_t end) {
  const TopkShape shape(problem.m, problem.n, problem.k, problem.column_major);
  const T* A = problem.A + begin * shape.m * shape.n;
  const TopkOutputs<T> out = matrix_of(problem.out, shape, begin);
  if (shape.together())
    TopkForward<T>(shape, problem.canonical).run(A, out, end - begin);
  else
    LargeForward<T>(shape, problem.canonical).run(A, out, end - begin);
}

template <class T>
void svd_topk_backward(const TopkBackwardProblem<T>& problem, int64_t begin, int64_t end) {
  const TopkShape shape(problem.m, problem.n, problem.k, problem.column_major);
  T* gA = problem.gA + begin * shape.m * shape.n;
  const TopkInputs<T> in = from_matrix(problem.in, shape, begin);
  if (shape.together())
    TopkBackward<T>(shape, problem.lorentz).run(in, gA, end - begin);
  else
    LargeBackward<T>(shape, problem.lorentz).run(in, gA, end - begin);
}

KDOPS_COMPILE_REAL(svd_topk_forward)
KDOPS_COMPILE_REAL(svd_topk_backward)

}  // namespace kdops::svd::KDOPS_ISA
