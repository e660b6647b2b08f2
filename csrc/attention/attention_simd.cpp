// Attention maps on raw pointers, compiled once per instruction set. One read of x forward, one
// read and one write backward. A group of positions (or, for channels_last maps, one position) is
// reduced over the channels while its sums stay in registers. The lanes are positions where those
// are contiguous and channels where those are; anything else was made contiguous by the glue.
#include "attention/attention_simd.h"

#include <algorithm>

#include "attention/power.h"
#include "attention/unit.h"
#include "common/simd/pack_loop.h"
#include "common/simd/scratch.h"

namespace kdops::attention::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

namespace {

template <class T>
inline Pack<T> larger(Pack<T> a, Pack<T> b) {  // NaN wins, so that it is not lost
  return select((b > a) | !(b == b), b, a);
}

template <class T, Exponent kind>
struct Attention {
  using P = Pack<T>;
  static constexpr int kLanes = P::kLanes;
  AttentionMaps<T> x;
  T p;
  bool largest;

  P join(P sum, P value) const { return largest ? larger(sum, value) : sum + value; }

  // Positions contiguous: sums of a group of packs in registers, channel after channel.
  template <int kGroup>
  void forward_group(const T* item, T* out, int last) const {
    P sums[kGroup];
    for (P& sum : sums) sum = P(T(0));
    for (int64_t c = 0; c < x.channels; ++c) {
      const T* row = item + c * x.channel;
#pragma GCC unroll 16
      for (int g = 0; g < kGroup; ++g) {
        const P value = load_some(row + g * kLanes, g == kGroup - 1 ? last : kLanes);
        sums[g] = join(sums[g], power<kind>(value, p));
      }
    }
    for (int g = 0; g < kGroup; ++g)
      store_some(sums[g], out + g * kLanes, g == kGroup - 1 ? last : kLanes);
  }

  void forward_rows(const T* item, T* out) const {
    constexpr int kGroup = 16;
    int64_t l = 0;
    for (; l + kGroup * kLanes <= x.length; l += kGroup * kLanes)
      forward_group<kGroup>(item + l, out + l, kLanes);
    for (; l + 4 * kLanes <= x.length; l += 4 * kLanes) forward_group<4>(item + l, out + l, kLanes);
    const int packs = static_cast<int>((x.length - l + kLanes - 1) / kLanes);
    const int last = static_cast<int>(x.length - l) - (packs - 1) * kLanes;
    if (packs == 4) forward_group<4>(item + l, out + l, last);
    if (packs == 3) forward_group<3>(item + l, out + l, last);
    if (packs == 2) forward_group<2>(item + l, out + l, last);
    if (packs == 1) forward_group<1>(item + l, out + l, last);
  }

  // Channels contiguous: one position after the other.
  void forward_columns(const T* item, T* out) const {
    for (int64_t l = 0; l < x.length; ++l) {
      const T* column = item + l * x.position;
      P sum(T(0));
      // absent lanes are zero and change neither the sum nor the maximum of |x|^p, p > 0
      for_packs<T>(x.channels, [&](int64_t c, int lanes) {
        sum = join(sum, power<kind>(load_some(column + c, lanes), p));
      });
      T total = sum.lane(0);
      for (int i = 1; i < kLanes; ++i) {
        const T value = sum.lane(i);
        if (!largest)
          total += value;
        else if (value > total || value != value)
          total = value;
      }
      out[l] = total;
    }
  }

  void backward_sum(const T* item, const T* grad, T* gx, int64_t channel, int64_t position) const {
    if (x.position == 1) {
      for (int64_t c = 0; c < x.channels; ++c)
        for_packs<T>(x.length, [&](int64_t l, int lanes) {
          const P slope = power_slope<kind>(load_some(item + c * x.channel + l, lanes), p);
          store_some(slope * load_some(grad + l, lanes), gx + c * channel + l, lanes);
        });
      return;
    }
    for (int64_t l = 0; l < x.length; ++l)
      for_packs<T>(x.channels, [&](int64_t c, int lanes) {
        const P slope = power_slope<kind>(load_some(item + l * x.position + c, lanes), p);
        store_some(slope * P(grad[l]), gx + l * position + c, lanes);
      });
  }

  void backward_largest(const T* item, const T* grad, T* gx, int64_t channel,
                        int64_t position) const {
    if (x.channels == 0) return;  // nobody to send the gradient to
    for (int64_t l = 0; l < x.length; ++l) {
      int64_t best = 0;
      T top = T(-1);
      for (int64_t c = 0; c < x.channels; ++c) {
        const T size = std::fabs(item[c * x.channel + l * x.position]);
        if (size > top || (size != size && top == top)) top = size, best = c;
        gx[c * channel + l * position] = T(0);
      }
      const P slope = power_slope<kind>(P(item[best * x.channel + l * x.position]), p);
      gx[best * channel + l * position] = slope.lane(0) * grad[l];
    }
  }
};

// Calls body with the Attention of the exponent at hand.
template <class T, class Body>
void with_exponent(const AttentionMaps<T>& x, T p, bool largest, const Body& body) {
  switch (exponent_of(p)) {
    case Exponent::one:
      return body(Attention<T, Exponent::one>{x, p, largest});
    case Exponent::two:
      return body(Attention<T, Exponent::two>{x, p, largest});
    case Exponent::three:
      return body(Attention<T, Exponent::three>{x, p, largest});
    case Exponent::four:
      return body(Attention<T, Exponent::four>{x, p, largest});
    default:
      return body(Attention<T, Exponent::other>{x, p, largest});
  }
}

}  // namespace

template <class T>
void attention_forward(const AttentionMaps<T>& x, T p, bool largest, T* out, int64_t begin,
                       int64_t end) {
  with_exponent<T>(x, p, largest, [&](auto attention) {
    for (int64_t b = begin; b < end; ++b) {
      const T* item = x.data + b * x.batch;
      if (x.position == 1)
        attention.forward_rows(item, out + b * x.length);
      else
        attention.forward_columns(item, out + b * x.length);
    }
  });
}

template <class T>
void attention_backward(const AttentionMaps<T>& x, T p, bool largest, const T* grad, T* gx,
                        int64_t gx_batch, int64_t gx_channel, int64_t gx_position, int64_t begin,
                        int64_t end) {
  with_exponent<T>(x, p, largest, [&](auto attention) {
    for (int64_t b = begin; b < end; ++b) {
      const T* item = x.data + b * x.batch;
      if (largest)
        attention.backward_largest(item, grad + b * x.length, gx + b * gx_batch, gx_channel,
                                   gx_position);
      else
        attention.backward_sum(item, grad + b * x.length, gx + b * gx_batch, gx_channel,
                               gx_position);
    }
  });
}

template <class T>
void attention_loss(const AttentionLoss<T>& o, int64_t begin, int64_t end) {
  const int64_t length = o.student.length;
  Scratch<T> student(length);
  for (int64_t b = begin; b < end; ++b) {
    const auto alone = [b](AttentionMaps<T> maps) {
      maps.data += b * maps.batch;
      return maps;
    };
    T* pull = o.pull + b * length;
    attention_forward<T>(alone(o.student), o.p, o.largest, student.get(), 0, 1);
    attention_forward<T>(alone(o.teacher), o.p, o.largest, pull, 0, 1);
    const T inverse = make_unit(student.get(), length);
    make_unit(pull, length);
    o.loss[b] = difference_loss(student.get(), pull, length, o.paper, o.coefficient);
    unit_backward(student.get(), inverse, length, pull);
  }
}

#define KDOPS_INSTANTIATE(T)                                                                   \
  template void attention_forward<T>(const AttentionMaps<T>&, T, bool, T*, int64_t, int64_t);  \
  template void attention_backward<T>(const AttentionMaps<T>&, T, bool, const T*, T*, int64_t, \
                                      int64_t, int64_t, int64_t, int64_t);                     \
  template void attention_loss<T>(const AttentionLoss<T>&, int64_t, int64_t);
KDOPS_INSTANTIATE(float)
KDOPS_INSTANTIATE(double)

}  // namespace kdops::attention::KDOPS_ISA
