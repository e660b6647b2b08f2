// The top-k SVD for one instruction set (isa.h): the entry points of topk_simd.h, instantiated.
#include "svd/topk/topk_simd.h"

#include "svd/topk/cpu/forward.h"
#include "svd/topk/cpu/gradient.h"

namespace kdops::svd::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

int64_t svd_topk_saved_size(int m, int n, int k) { return TopkShape(m, n, k, false).saved_size(); }

template <class T>
void svd_topk_forward(const T* A, T* U, T* S, T* Vh, T* saved, int64_t count, int m, int n, int k,
                      bool canonical, bool column_major) {
  TopkForward<T>({m, n, k, column_major}, canonical).run(A, {U, S, Vh, saved}, count);
}

template <class T>
void svd_topk_backward(const T* gU, const T* gS, const T* gVh, const T* A, const T* U, const T* S,
                       const T* Vh, const T* saved, T* gA, int64_t count, int m, int n, int k,
                       bool lorentz, bool column_major) {
  TopkBackward<T>({m, n, k, column_major}, lorentz)
      .run({gU, gS, gVh, A, U, S, Vh, saved}, gA, count);
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
