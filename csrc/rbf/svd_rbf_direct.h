// svd_rbf_loss of one item, pair by pair: any values, any beta.
//
// With a = back - front for student and teacher, in units of sqrt(beta / log2(e)), so that
// K = 2^(-a^2), p = a_S^2, q = a_T^2: the gap q - p = (a_T - a_S)(a_T + a_S) keeps its digits, as
// does
//   K_S - K_T = sign(gap) * 2^-min(p, q) * (1 - 2^-|gap|).
// Differences are taken first and brought to those units then, so that an offset common to front
// and back costs nothing. a_T - a_S is also the difference of the shifts teacher - student of back
// and front, whichever has the smaller terms: the shifts where student and teacher are close, a_S
// and a_T where they lie apart. Loss and both gradients come from one pass over the pairs.
#pragma once

#include "common/simd/exp.h"
#include "rbf/svd_rbf_side.h"

namespace kdops::rbf::KDOPS_ISA {

// The front side as seen from one back value; kTail: only `mask` lanes are pairs.
template <bool kTail, class T>
inline void direct_pairs(const Side<T>& front, int64_t n, const Side<T>& back, int64_t m,
                         Pack<T> factor, Pack<T> mask, Pack<T>& loss, Pack<T>& row) {
  using P = Pack<T>;
  const P s = P(back.student[m]) - P::load(front.student + n);
  const P t = P(back.teacher[m]) - P::load(front.teacher + n);
  const P near = P(back.shift[m]), far = P::load(front.shift + n);
  const P difference = select(abs(near) + abs(far) < abs(s) + abs(t), near - far, t - s);
  const P a_student = factor * s, a_teacher = factor * t;
  const P gap = (factor * difference) * (a_teacher + a_student);
  const P base = exp2_of_negative(-min(a_student * a_student, a_teacher * a_teacher));
  P power;
  const P lost = exp2m1_and_exp2(-abs(gap), power);  // -(1 - 2^-|gap|)
  P delta = copysign(base * lost, gap);              // K_S - K_T
  if constexpr (kTail) delta *= mask;
  const P k_student = select(gap < P(T(0)), base * power, base);
  const P pull = delta * k_student * a_student;
  loss = fma(delta, delta, loss);
  row += pull;
  (P::load(front.partial + n) - pull).store(front.partial + n);
}

inline constexpr int64_t kRowsTogether = 64;  // whose pulls on the front are added up in T

// front.gradient += front.partial, which is cleared: sums in T stay short.
template <class T>
inline void flush(const Side<T>& front) {
  for (int64_t n = 0; n < front.padded(); ++n) {
    front.gradient[n] += front.partial[n];
    front.partial[n] = T(0);
  }
}

// Unscaled loss; dL/da by `unit`, up to -4 scale / beta, summed into front.gradient and
// back.gradient.
template <class T>
double svd_rbf_direct(const Side<T>& front, const Side<T>& back, double unit) {
  using P = Pack<T>;
  const P factor(static_cast<T>(1 / unit));
  for (int64_t n = 0; n < front.padded(); ++n) front.gradient[n] = front.partial[n] = T(0);
  const int64_t whole = front.count / P::kLanes * P::kLanes;
  T ones[P::kLanes];
  for (int i = 0; i < P::kLanes; ++i) ones[i] = whole + i < front.count ? T(1) : T(0);
  const P mask = P::load(ones);
  double total = 0;
  for (int64_t m = 0; m < back.count; ++m) {
    P loss(T(0)), row(T(0));
    for (int64_t n = 0; n < whole; n += P::kLanes)
      direct_pairs<false>(front, n, back, m, factor, mask, loss, row);
    if (whole < front.count) direct_pairs<true>(front, whole, back, m, factor, mask, loss, row);
    if (m % kRowsTogether == kRowsTogether - 1) flush(front);
    total += static_cast<double>(reduce_add(loss));
    back.gradient[m] = reduce_add(row);
  }
  flush(front);
  return total;
}

}  // namespace kdops::rbf::KDOPS_ISA
