// The full SVD's gradient on raw pointers, compiled once per instruction set.
#include "svd/full/backward_simd.h"

#include "svd/full/cpu/gradient.h"

namespace kdops::svd::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

template <class T>
void svd_backward(const T* gU, const T* gS, const T* gVh, const T* U, const T* S, const T* Vh,
                  T* gA, int64_t count, int64_t m, int64_t n, bool lorentz) {
  SvdBackward<T> backward(m, n, lorentz);
  const int64_t r = std::min(m, n);
  const auto at = [](const T* base, int64_t offset) { return base ? base + offset : nullptr; };
  for (int64_t b = 0; b < count; ++b)
    backward.run({at(gU, b * m * r), at(gS, b * r), at(gVh, b * r * n)},
                 {U + b * m * r, S + b * r, Vh + b * r * n}, gA + b * m * n);
}

#define KDOPS_INSTANTIATE(T)                                                                    \
  template void svd_backward<T>(const T*, const T*, const T*, const T*, const T*, const T*, T*, \
                                int64_t, int64_t, int64_t, bool);
KDOPS_INSTANTIATE(float)
KDOPS_INSTANTIATE(double)

}  // namespace kdops::svd::KDOPS_ISA
