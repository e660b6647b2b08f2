// Attention maps on raw pointers, compiled once per instruction set. One read of x forward, one
// read and one write backward. A group of positions (or, for channels_last maps, one position) is
// reduced over the channels while its sums stay in registers. The lanes are positions where those
// are contiguous and channels where those are; anything else was made contiguous by the glue.
#include "attention/attention_simd.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/power.h"
#include "attention/unit.h"
#include "common/shared/unit_row.h"
#include "common/simd/pack_loop.h"
#include "common/simd/scratch.h"

namespace kdops::attention::KDOPS_ISA {

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

  // Positions contiguous: sums of a group of packs in registers, channel after channel; `out`
  // gathers those of a block of channels.
  template <int kGroup>
  void forward_group(const T* item, T* out, int last) const {
    for (int64_t first = 0; first == 0 || first < x.channels; first += kSumBlock) {
      P sums[kGroup];
      for (P& sum : sums) sum = P(T(0));
      const int64_t end = std::min(x.channels, first + kSumBlock);
      for (int64_t c = first; c < end; ++c) {
        const T* row = item + c * x.channel;
#pragma GCC unroll 16
        for (int g = 0; g < kGroup; ++g) {
          const P value = load_some(row + g * kLanes, g == kGroup - 1 ? last : kLanes);
          sums[g] = join(sums[g], power<kind>(value, p));
        }
      }
      for (int g = 0; g < kGroup; ++g) {
        const int lanes = g == kGroup - 1 ? last : kLanes;
        if (first > 0) sums[g] = join(load_some(out + g * kLanes, lanes), sums[g]);
        store_some(sums[g], out + g * kLanes, lanes);
      }
    }
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
    constexpr int64_t kStep = kSumBlock * kLanes;
    for (int64_t l = 0; l < x.length; ++l) {
      const T* column = item + l * x.position;
      T total(0);
      for (int64_t first = 0; first < x.channels; first += kStep) {
        P sum(T(0));
        // absent lanes are zero and change neither the sum nor the maximum of |x|^p, p > 0
        for_packs<T>(std::min(kStep, x.channels - first), [&](int64_t c, int lanes) {
          sum = join(sum, power<kind>(load_some(column + first + c, lanes), p));
        });
        for (int i = 0; i < kLanes; ++i) {
          const T value = sum.lane(i);
          if (!largest)
            total += value;
          else if (value > total || value != value)
            total = value;
        }
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
  if (p == T(1)) return body(Attention<T, Exponent::one>{x, p, largest});
  if (p == T(2)) return body(Attention<T, Exponent::two>{x, p, largest});
  if (p == T(3)) return body(Attention<T, Exponent::three>{x, p, largest});
  if (p == T(4)) return body(Attention<T, Exponent::four>{x, p, largest});
  body(Attention<T, Exponent::other>{x, p, largest});
}

template <class T>
AttentionMaps<T> item_of(AttentionMaps<T> x, int64_t b) {
  x.data += b * x.batch;
  return x;
}

// Whether an attention map with this largest entry, and its gradient, are far from the ends of T.
template <class T>
bool in_range(T largest) {
  constexpr int kFar = std::numeric_limits<T>::max_exponent / 2 - 4;
  return largest > std::ldexp(T(1), -kFar) && largest < std::ldexp(T(1), kFar);
}

// x times a power of two, in `memory` (C * L), as it lies.
template <class T>
AttentionMaps<T> scaled(const AttentionMaps<T>& x, T unit, T* memory) {
  AttentionMaps<T> y = x;
  y.data = memory;
  y.channel = x.position == 1 ? x.length : 1;
  y.position = x.position == 1 ? 1 : x.channels;
  for (int64_t c = 0; c < x.channels; ++c)
    for (int64_t l = 0; l < x.length; ++l)
      memory[c * y.channel + l * y.position] = unit * x.data[c * x.channel + l * x.position];
  return y;
}

template <class T>
T largest_entry(const AttentionMaps<T>& x) {
  T largest(0);
  for (int64_t c = 0; c < x.channels; ++c)
    for (int64_t l = 0; l < x.length; ++l)
      largest = max(std::fabs(x.data[c * x.channel + l * x.position]), largest);
  return largest;
}

// The attention map q (L) of unit * x, one map; returns unit. It is 1 but for maps whose powers
// leave the range of T: those are brought back by a power of two, which rounds nothing.
template <class T>
T forward_in_range(const AttentionMaps<T>& x, T p, bool largest, T* q) {
  attention_forward<T>(x, p, largest, q, 0, 1);
  if (in_range(largest_size(q, x.length))) return T(1);
  const T unit = row_scale(largest_entry(x));
  if (unit == T(1)) return unit;
  Scratch<T> memory(x.channels * x.length);
  attention_forward<T>(scaled(x, unit, memory.get()), p, largest, q, 0, 1);
  return unit;
}

// gx of one map, with `out` at its first entry.
template <class T>
void backward_item(const AttentionGradient<T>& o, const AttentionMaps<T>& x, const T* grad,
                   T* out) {
  with_exponent<T>(x, o.p, o.largest, [&](auto attention) {
    if (o.largest)
      attention.backward_largest(x.data, grad, out, o.gx_channel, o.gx_position);
    else
      attention.backward_sum(x.data, grad, out, o.gx_channel, o.gx_position);
  });
}

// out *= unit; what leaves the range is clipped: a finite map has a finite gradient.
template <class T>
void rescale(const AttentionGradient<T>& o, T unit, T* out) {
  constexpr T kLargest = std::numeric_limits<T>::max();
  for (int64_t c = 0; c < o.x.channels; ++c)
    for (int64_t l = 0; l < o.x.length; ++l) {
      T& value = out[c * o.gx_channel + l * o.gx_position];
      value *= unit;
      if (std::fabs(value) > kLargest) value = std::copysign(kLargest, value);
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
void attention_backward(const AttentionGradient<T>& o, int64_t begin, int64_t end) {
  for (int64_t b = begin; b < end; ++b) {
    const AttentionMaps<T> x = item_of(o.x, b);
    const T* grad = o.grad + b * x.length;
    T* out = o.gx + b * o.gx_batch;
    const T unit = o.unit == nullptr ? T(1) : o.unit[b];
    if (unit == T(1)) {
      backward_item(o, x, grad, out);
      continue;
    }
    Scratch<T> memory(x.channels * x.length);
    backward_item(o, scaled(x, unit, memory.get()), grad, out);
    rescale(o, unit, out);
  }
}

template <class T>
void attention_loss(const AttentionLoss<T>& o, int64_t begin, int64_t end) {
  const int64_t length = o.student.length;
  Scratch<T> student(length);
  for (int64_t b = begin; b < end; ++b) {
    T* pull = o.pull + b * length;
    o.unit[b] = forward_in_range(item_of(o.student, b), o.p, o.largest, student.get());
    forward_in_range(item_of(o.teacher, b), o.p, o.largest, pull);
    const T inverse = make_unit(student.get(), length);
    make_unit(pull, length);
    o.loss[b] = difference_loss(student.get(), pull, length, o.paper, o.coefficient);
    unit_backward(student.get(), inverse, length, pull);
  }
}

KDOPS_COMPILE_REAL(attention_forward)
KDOPS_COMPILE_REAL(attention_backward)
KDOPS_COMPILE_REAL(attention_loss)

}  // namespace kdops::attention::KDOPS_ISA
