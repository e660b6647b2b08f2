// The svd kernels on raw pointers, compiled once per instruction set: which algorithm for which
// shape. The algorithms are in full.h (tall, wide, square) and square.h.
#include "svd/svd_simd.h"

#include "svd/eigen.h"
#include "svd/full.h"

namespace kdops::KDOPS_ISA {

template <class T>
void svd_full(const T* a, T* u, T* s, T* vh, int64_t count, int m, int n, bool canonical,
              bool fast) {
  if (count <= 0) return;
  FullSvd<T>(m, n, {u, s, vh, canonical, fast}).run(a, count);
}

template <class T>
void svdvals(const T* a, T* s, int64_t count, int m, int n) {
  if (count <= 0) return;
  FullSvd<T>(m, n, {nullptr, s, nullptr, false, false}).run(a, count);
}

template <class T>
void eigh(const T* a, T* eigenvalues, T* eigenvectors, int64_t count, int n) {
  if (count > 0) symmetric_eigen(a, eigenvalues, eigenvectors, count, n);
}

#define KDOPS_INSTANTIATE(T)                                                      \
  template void svd_full<T>(const T*, T*, T*, T*, int64_t, int, int, bool, bool); \
  template void svdvals<T>(const T*, T*, int64_t, int, int);                      \
  template void eigh<T>(const T*, T*, T*, int64_t, int);
KDOPS_INSTANTIATE(float)
KDOPS_INSTANTIATE(double)

}  // namespace kdops::KDOPS_ISA
