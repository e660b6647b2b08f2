// The gram kernels on raw pointers, compiled once per instruction set. Long contiguous rows go to
// the dot tile; short rows, channels_last maps and half precision to the packed product.
#include "gram/gram_simd.h"

#include <type_traits>

#include "common/gemm.h"
#include "gram/dot_tile.h"

namespace kdops::KDOPS_ISA {

namespace {

// Below this length the horizontal sum of a dot tile costs more than packing.
constexpr int64_t kLongRow = 128;

template <class T>
void mirror_upper(T* out, int64_t n) {
  for (int64_t i = 1; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) out[i * n + j] = out[j * n + i];
}

}  // namespace

template <class In>
void gram_forward(GramShape shape, gram_result_t<In> scale, Maps<In> x, Maps<In> y,
                  gram_result_t<In>* out, int64_t begin, int64_t end) {
  using T = gram_result_t<In>;
  const auto [c1, c2, length, symmetric] = shape;
  const bool long_rows = x.position == 1 && y.position == 1 && length >= kLongRow;
  for (int64_t b = begin; b < end; ++b) {
    const In* xb = x.data + b * x.batch;
    const In* yb = y.data + b * y.batch;
    T* ob = out + b * c1 * c2;
    bool done = false;
    if constexpr (std::is_same_v<In, T>)
      if (long_rows) {
        gram_by_dots(c1, c2, length, symmetric, scale, xb, x.channel, yb, y.channel, ob);
        done = true;
      }
    if (!done)
      gemm<T, In, In>(c1, c2, length, scale, {xb, x.channel, x.position},
                      {yb, y.position, y.channel}, {ob, c2, 1}, false,
                      symmetric ? Part::upper : Part::all);
    if (symmetric) mirror_upper(ob, c1);
  }
}

template <class In>
void gram_backward(GramShape shape, bool transposed, gram_result_t<In> scale,
                   const gram_result_t<In>* grad, Maps<In> y, gram_result_t<In>* gx, int64_t begin,
                   int64_t end) {
  using T = gram_result_t<In>;
  const auto [c1, c2, length, symmetric] = shape;
  Scratch<T> sum(symmetric ? c1 * c1 : 0);
  for (int64_t b = begin; b < end; ++b) {
    const T* g = grad + b * c1 * c2;
    if (symmetric) {
      for (int64_t i = 0; i < c1; ++i)
        for (int64_t j = 0; j < c1; ++j) sum[i * c1 + j] = g[i * c1 + j] + g[j * c1 + i];
      g = sum.get();
    }
    const View<const T> left = transposed ? View<const T>{g, 1, c1} : View<const T>{g, c2, 1};
    gemm<T, T, In>(c1, length, c2, scale, left, {y.data + b * y.batch, y.channel, y.position},
                   {gx + b * c1 * length, length, 1});
  }
}

#define KDOPS_INSTANTIATE(In)                                                                   \
  template void gram_forward<In>(GramShape, gram_result_t<In>, Maps<In>, Maps<In>,              \
                                 gram_result_t<In>*, int64_t, int64_t);                         \
  template void gram_backward<In>(GramShape, bool, gram_result_t<In>, const gram_result_t<In>*, \
                                  Maps<In>, gram_result_t<In>*, int64_t, int64_t);
KDOPS_INSTANTIATE(float)
KDOPS_INSTANTIATE(double)
KDOPS_INSTANTIATE(Fp16)
KDOPS_INSTANTIATE(Bf16)

}  // namespace kdops::KDOPS_ISA
