// The full SVD's gradient on raw pointers, compiled once per instruction set.
#include "svd/full/backward_simd.h"

#include "svd/full/cpu/gradient.h"

namespace kdops::svd::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

template <class T>
void svd_backward(const SvdBackwardProblem<T>& problem, int64_t begin, int64_t end) {
  const int64_t m = problem.m, n = problem.n, r = std::min(m, n);
  SvdBackward<T> backward(m, n, problem.lorentz);
  const auto at = [](const T* base, int64_t offset) { return base ? base + offset : nullptr; };
  for (int64_t b = begin; b < end; ++b)
    backward.run({at(problem.gU, b * m * r), at(problem.gS, b * r), at(problem.gVh, b * r * n)},
                 {problem.U + b * m * r, problem.S + b * r, problem.Vh + b * r * n},
                 problem.gA + b * m * n);
}

KDOPS_COMPILE_REAL(svd_backward)

}  // namespace kdops::svd::KDOPS_ISA
