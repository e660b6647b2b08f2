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
KDOPS_KERNEL(attention_forward, const AttentionMaps<T>& x, T p, bool largest, T* out)

// gx (B, C, L) = grad[b, l] * p |u x|^(p-1) sign(x) u with u = unit[b], for `largest` at the first
// largest channel only.
template <class T>
struct AttentionGradient {
  AttentionMaps<T> x;
  T p;
  bool largest;
  const T* grad;  // (B, L)
  const T* unit;  // (B) powers of two, or null: all one
  T* gx;          // lies as x where x.position or x.channel is 1 (see attention.cpp)
  int64_t gx_batch, gx_channel, gx_position;
};

KDOPS_ENTRY(attention_backward, AttentionGradient)

template <class T>
struct AttentionLoss {
  AttentionMaps<T> student, teacher;  // equal lengths, any channels
  T p;
  bool largest, paper;
  T coefficient;
  T* loss;  // (B), one value per item
  T* pull;  // (B, L), derivative of the loss by the attention map of unit * student
  T* unit;  // (B), 1 but for maps whose powers would leave the range of T
};

// Losses and derivatives of the items begin..end; see attention.cpp for the formula.
KDOPS_ENTRY(attention_loss, AttentionLoss)

}  // namespace kdops::attention
