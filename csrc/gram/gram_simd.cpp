// The gram kernels on raw pointers, compiled once per instruction set. Long contiguous rows go to
// the dot tile, short rows and channels_last maps to the packed product. Half precision is widened
// item by item, as it lies, while it is in the cache.
#include "gram/gram_simd.h"

#include <type_traits>

#include "common/blas/gemm.h"
#include "common/simd/half.h"
#include "gram/dot_rows.h"

namespace kdops::gram::KDOPS_ISA {

namespace {

// Below this length the horizontal sum of a dot tile costs more than packing.
constexpr int64_t kLongRow = 128;

// One item of maps (channels x length) as the kernels read it: where it lies, or widened.
template <class In>
class Item {
 public:
  using T = gram_result_t<In>;
  Item(Maps<In> maps, int64_t channels, int64_t length)
      : maps_(maps), channels_(channels), length_(length), wide_(kWiden ? channels * length : 0) {}

  View<const T> at(int64_t b) const {
    const In* from = maps_.data + b * maps_.batch;
    if constexpr (!kWiden)
      return {from, maps_.channel, maps_.position};
    else
      return widened(from);
  }

 private:
  static constexpr bool kWiden = !std::is_same_v<In, T>;

  View<const T> widened(const In* from) const {
    T* out = wide_.get();
    if (maps_.channel == 1 && maps_.position != 1) {
      for (int64_t l = 0; l < length_; ++l)
        widen(from + l * maps_.position, channels_, out + l * channels_);
      return {out, 1, channels_};
    }
    for (int64_t c = 0; c < channels_; ++c)
      if (maps_.position == 1)
        widen(from + c * maps_.channel, length_, out + c * length_);
      else
        for (int64_t l = 0; l < length_; ++l)
          out[c * length_ + l] = widen(from[c * maps_.channel + l * maps_.position]);
    return {out, length_, 1};
  }

  Maps<In> maps_;
  int64_t channels_, length_;
  Scratch<T> wide_;
};

}  // namespace

template <class In>
void gram_forward(const GramForward<In>& problem, int64_t begin, int64_t end) {
  using T = gram_result_t<In>;
  const auto [c1, c2, length, symmetric] = problem.shape;
  const T scale = problem.scale;
  const Item<In> left(problem.x, c1, length),
      right(problem.y, symmetric ? 0 : c2, symmetric ? 0 : length);
  for (int64_t b = begin; b < end; ++b) {
    const View<const T> xb = left.at(b), yb = symmetric ? xb : right.at(b);
    T* ob = problem.out + b * c1 * c2;
    if (xb.col == 1 && yb.col == 1 && length >= kLongRow)
      gram_by_dots(c1, c2, length, symmetric, scale, xb, yb, ob);
    else
      gemm<T>(c1, c2, length, scale, xb, yb.turned(), {ob, c2, 1}, false,
              symmetric ? Part::upper : Part::all);
    if (symmetric) mirror_upper(ob, c1);
  }
}

template <class In>
void gram_backward(const GramBackward<In>& problem, int64_t begin, int64_t end) {
  using T = gram_result_t<In>;
  const auto [c1, c2, length, symmetric] = problem.shape;
  const Item<In> right(problem.y, c2, length);
  Scratch<T> sum(symmetric ? c1 * c1 : 0);
  for (int64_t b = begin; b < end; ++b) {
    const T* g = problem.grad + b * c1 * c2;
    if (symmetric) {
      for (int64_t i = 0; i < c1; ++i)
        for (int64_t j = 0; j < c1; ++j) sum[i * c1 + j] = g[i * c1 + j] + g[j * c1 + i];
      g = sum.get();
    }
    const View<const T> left =
        problem.transposed ? View<const T>{g, 1, c1} : View<const T>{g, c2, 1};
    gemm<T>(c1, length, c2, problem.scale, left, right.at(b),
            {problem.gx + b * c1 * length, length, 1});
  }
}

KDOPS_COMPILE_REAL(gram_forward)
KDOPS_COMPILE(gram_forward, Fp16)
KDOPS_COMPILE(gram_forward, Bf16)
KDOPS_COMPILE_REAL(gram_backward)
KDOPS_COMPILE(gram_backward, Fp16)
KDOPS_COMPILE(gram_backward, Bf16)

}  // namespace kdops::gram::KDOPS_ISA
