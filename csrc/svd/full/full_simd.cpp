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

template <class T>
void run_full(const T* a, int64_t count, int m, int n, bool by_columns, SvdOutput<T> out) {
  if (count <= 0) return;
  if (by_columns) return run_by_columns(a, count, m, n, out);
  FullSvd<T>(m, n, out).run(a, count);
}

}  // namespace

template <class T>
void svd_full(const T* a, T* u, T* s, T* vh, int64_t count, int m, int n, bool by_columns,
              bool canonical, bool fast) {
  run_full<T>(a, count, m, n, by_columns, {u, s, vh, canonical, fast});
}

template <class T>
void svdvals(const T* a, T* s, int64_t count, int m, int n, bool by_columns) {
  run_full<T>(a, count, m, n, by_columns, {nullptr, s, nullptr, false, false});
}

template <class T>
void eigh(const T* a, T* eigenvalues, T* eigenvectors, int64_t count, int n) {
  if (count > 0) symmetric_eigen(a, eigenvalues, eigenvectors, count, n);
}

#define KDOPS_INSTANTIATE(T)                                                            \
  template void svd_full<T>(const T*, T*, T*, T*, int64_t, int, int, bool, bool, bool); \
  template void svdvals<T>(const T*, T*, int64_t, int, int, bool);                      \
  template void eigh<T>(const T*, T*, T*, int64_t, int);
KDOPS_INSTANTIATE(float)
KDOPS_INSTANTIATE(double)

}  // namespace kdops::svd::KDOPS_ISA
