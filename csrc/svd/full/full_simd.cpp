// The svd kernels on raw pointers, compiled once per instruction set: which algorithm for which
// shape. The algorithms are in full.h (tall, wide, square) and square.h.
#include "svd/full/full_simd.h"

#include <algorithm>

#include "svd/full/cpu/eigh.h"
#include "svd/full/cpu/gram_route.h"
#include "svd/full/cpu/qr_route.h"

namespace kdops::svd::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

namespace {

template <class T>
SvdOutput<T> from_matrix(SvdOutput<T> out, int64_t b, int m, int n) {
  const int64_t p = std::min(m, n);
  return {out.u ? out.u + b * m * p : nullptr, out.s + b * p, out.vh ? out.vh + b * p * n : nullptr,
          out.canonical, out.fast};
}

// Matrices that lie by columns are turned around a group at a time, and used while in the cache: a
// copy of the whole batch takes longer than the decomposition of tall matrices.
template <class T>
void run_by_columns(const T* a, int64_t count, int m, int n, SvdOutput<T> out) {
  const int64_t size = static_cast<int64_t>(m) * n, cached = (int64_t(1) << 18) / sizeof(T);
  const int64_t lanes = m == n ? NumberTraits<Wide<T>>::kLanes : Pack<T>::kLanes;
  const int64_t group = std::min(count, std::max<int64_t>(1, cached / size / lanes) * lanes);
  Scratch<T> rows(group * size);
  for (int64_t b = 0; b < count; b += group) {
    const int64_t some = std::min(group, count - b);
    for (int64_t i = 0; i < some; ++i)
      transpose_block(a + (b + i) * size, m, n, m, rows.get() + i * size, n);
    FullSvd<T>(m, n, from_matrix(out, b, m, n)).run(rows.get(), some);
  }
}

}  // namespace

template <class T>
void svd_full(const SvdProblem<T>& problem, int64_t begin, int64_t end) {
  if (begin >= end) return;
  const int m = problem.m, n = problem.n;
  const SvdOutput<T> all{problem.u, problem.s, problem.vh, problem.canonical, problem.fast};
  const SvdOutput<T> out = from_matrix(all, begin, m, n);
  const T* a = problem.a + begin * m * n;
  if (problem.by_columns)
    run_by_columns(a, end - begin, m, n, out);
  else
    FullSvd<T>(m, n, out).run(a, end - begin);
}

template <class T>
void eigh(const EighProblem<T>& problem, int64_t begin, int64_t end) {
  if (begin >= end) return;
  const int64_t n = problem.n;
  symmetric_eigen(problem.a + begin * n * n, problem.values + begin * n,
                  problem.vectors + begin * n * n, end - begin, problem.n);
}

KDOPS_COMPILE_REAL(svd_full)
KDOPS_COMPILE_REAL(eigh)

}  // namespace kdops::svd::KDOPS_ISA
