// CPU entry points of the attention room, one copy per instruction set (common/simd/isa.h).
#pragma once

#include <cstdint>

#include "common/simd/isa.h"

namespace kdops::attention {

// Maps (B, C, L): element (b, c, l) is data[b * batch + c * channel + l * position].
template <class T>
struct AttentionMaps {
  const T* data;
  int64_t batch, channel, position;
  int64_t channels, length;
};

// out[b, l] = sum over c of |x|^p, or (largest) the maximum over c.
KDOPS_PER_ISA(template <class T> void attention_forward(const AttentionMaps<T>& x, T p,
                                                        bool largest, T* out, int64_t begin,
                                                        int64_t end);)

// gx (B, C, L) = grad[b, l] * p |x|^(p-1) sign(x), for `largest` at the first largest channel only.
// gx has the strides of x when `x.position` or `x.channel` is 1 (see attention_cpu.cpp).
KDOPS_PER_ISA(template <class T>
              void attention_backward(const AttentionMaps<T>& x, T p, bool largest, const T* grad,
                                      T* gx, int64_t gx_batch, int64_t gx_channel,
                                      int64_t gx_position, int64_t begin, int64_t end);)

template <class T>
struct AttentionLoss {
  AttentionMaps<T> student, teacher;  // equal lengths, any channels
  T p;
  bool largest, paper;
  T coefficient;
  T* loss;  // (B), one value per item
  T* pull;  // (B, L), derivative of the loss by the student's attention map
};

// Losses and derivatives of the items begin..end; see attention.cpp for the formula.
KDOPS_PER_ISA(template <class T>
              void attention_loss(const AttentionLoss<T>& problem, int64_t begin, int64_t end);)

}  // namespace kdops::attention
