// The svd kernels on raw pointers, compiled once per instruction set: which algorithm for which
// shape. The algorithms are in full.h (tall, wide, square) and square.h.
#include "svd/full/full_simd.h"

#include <algorithm>

#include "svd/full/cpu/eigh.h"
#include "svd/full/cpu/gradient.h"
#include "svd/full/cpu/gram_route.h"
#include "svd/full/cpu/qr_route.h"

namespace kdops::svd::KDOPS_ISA {

namespace {

template <class T>
T* move_by(T* data, int64_t numbers) {
  return data ? data + numbers : nullptr;
}

// From matrix b on.
template <class T>
SvdProblem<T> rest_of(SvdProblem<T> all, int64_t b) {
  const int64_t m = all.m, n = all.n, p = std::min(m, n);
  all.a += b * m * n, all.s += b * p;
  all.u = move_by(all.u, b * m * p), all.vh = move_by(all.vh, b * p * n);
  return all;
}

// Matrices that lie by columns are turned around a group at a time, and used while in the cache: a
// copy of the whole batch takes longer than the decomposition of tall matrices.
template <class T>
void run_by_columns(const SvdProblem<T>& all, int64_t count) {
  const int m = all.m, n = all.n;
  const int64_t size = static_cast<int64_t>(m) * n, cached = (int64_t(1) << 18) / sizeof(T);
  const int64_t lanes = m == n ? NumberTraits<Wide<T>>::kLanes : Pack<T>::kLanes;
  const int64_t group = std::min(count, std::max<int64_t>(1, cached / size / lanes) * lanes);
  Scratch<T> rows(group * size);
  for (int64_t b = 0; b < count; b += group) {
    const int64_t some = std::min(group, count - b);
    SvdProblem<T> part = rest_of(all, b);
    for (int64_t i = 0; i < some; ++i)
      transpose_block(part.a + i * size, m, n, m, rows.get() + i * size, n);
    part.a = rows.get();
    FullSvd<T>(part).run(some);
  }
}

}  // namespace

template <class T>
void svd_full(const SvdProblem<T>& problem, int64_t begin, int64_t end) {
  if (begin >= end) return;
  const SvdProblem<T> part = rest_of(problem, begin);
  if (problem.by_columns)
    run_by_columns(part, end - begin);
  else
    FullSvd<T>(part).run(end - begin);
}

template <class T>
void svd_backward(const SvdBackwardProblem<T>& problem, int64_t begin, int64_t end) {
  const int64_t m = problem.m, n = problem.n, r = std::min(m, n);
  SvdBackward<T> backward(m, n);
  for (int64_t b = begin; b < end; ++b) {
    SvdBackwardProblem<T> one = problem;
    one.gU = move_by(one.gU, b * m * r), one.U += b * m * r;
    one.gS = move_by(one.gS, b * r), one.S += b * r;
    one.gVh = move_by(one.gVh, b * r * n), one.Vh += b * r * n;
    one.gA += b * m * n;
    backward.run(one);
  }
}

KDOPS_COMPILE_REAL(svd_full)
KDOPS_COMPILE_REAL(eigh)
KDOPS_COMPILE_REAL(svd_backward)

}  // namespace kdops::svd::KDOPS_ISA
