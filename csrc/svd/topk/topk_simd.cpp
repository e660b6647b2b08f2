// The top-k SVD for one instruction set (isa.h): the entry points of topk_simd.h, instantiated.
#include "svd/topk/topk_simd.h"

#include "svd/topk/cpu/forward.h"
#include "svd/topk/cpu/gradient.h"
#include "svd/topk/cpu/large_forward.h"
#include "svd/topk/cpu/large_gradient.h"

namespace kdops::svd::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

int64_t svd_topk_saved_size(int m, int n, int k) { return TopkShape(m, n, k, false).saved_size(); }

template <class T>
void svd_topk_forward(const T* A, T* U, T* S, T* Vh, T* saved, int64_t count, int m, int n, int k,
                      bool canonical, bool column_major) {
  const TopkShape shape(m, n, k, column_major);
  if (shape.together())
    TopkForward<T>(shape, canonical).run(A, {U, S, Vh, saved}, count);
  else
    LargeForward<T>(shape, canonical).run(A, {U, S, Vh, saved}, count);
}

template <class T>
void svd_topk_backward(const T* gU, const T* gS, const T* gVh, const T* A, const T* U, const T* S,
                       const T* Vh, const T* saved, T* gA, int64_t count, int m, int n, int k,
                       bool lorentz, bool column_major) {
  const TopkShape shape(m, n, k, column_major);
  const TopkInputs<T> inputs{gU, gS, gVh, A, U, S, Vh, saved};
  if (shape.together())
    TopkBackward<T>(shape, lorentz).run(inputs, gA, count);
  else
    LargeBackward<T>(shape, lorentz).run(inputs, gA, count);
}

template void svd_topk_forward(const float*, float*, float*, float*, float*, int64_t, int, int, int,
                               bool, bool);
template void svd_topk_forward(const double*, double*, double*, double*, double*, int64_t, int, int,
                               int, bool, bool);
template void svd_topk_backward(const float*, const float*, const float*, const float*,
                                const float*, const float*, const float*, const float*, float*,
                                int64_t, int, int, int, bool, bool);
template void svd_topk_backward(const double*, const double*, const double*, const double*,
                                const double*, const double*, const double*, const double*, double*,
                                int64_t, int, int, int, bool, bool);

}  // namespace kdops::svd::KDOPS_ISA
