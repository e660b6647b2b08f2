// svd_rbf_loss of one item, pair by pair: any values, any beta.
//
// With a = back - front for student and teacher, p = a_S^2 / beta and q = a_T^2 / beta, the gap
// q - p = (a_T - a_S)(a_T + a_S) / beta keeps its digits, and so does
//   K_S - K_T = sign(gap) * exp(-min(p, q)) * (1 - exp(-|gap|)).
// Loss and both gradients come from one pass over the pairs.
#pragma once

#include "rbf/exp.h"
#include "rbf/side.h"

namespace kdops::KDOPS_ISA {

// The front side as seen from one back value; kTail: only `mask` lanes are pairs.
template <bool kTail, class T>
inline void direct_pairs(const Side<T>& front, int64_t n, const Side<T>& back, int64_t m,
                         Pack<T> inverse_beta, Pack<T> mask, Pack<T>& loss, Pack<T>& row) {
  using P = Pack<T>;
  const P a_student = P(back.student[m]) - P::load(front.student + n);
  const P a_teacher = P(back.teacher[m]) - P::load(front.teacher + n);
  const P difference = P(back.shift[m]) - P::load(front.shift + n);  // a_T - a_S
  const P gap = (difference * inverse_beta) * (a_teacher + a_student);
  const P nearest = min(a_student * a_student, a_teacher * a_teacher);
  const P base = exp(-(nearest * inverse_beta));
  P far;
  const P lost = expm1_and_exp(-abs(gap), far);  // -(1 - exp(-|gap|))
  P delta = copysign(base * lost, gap);          // K_S - K_T
  if constexpr (kTail) delta *= mask;
  const P k_student = select(gap < P(T(0)), base * far, base);
  const P pull = delta * k_student * a_student;
  loss = fma(delta, delta, loss);
  row += pull;
  (P::load(front.gradient + n) - pull).store(front.gradient + n);
}

// Unscaled loss; dL/da, up to -4 scale / beta, summed into front.gradient and back.gradient.
template <class T>
double svd_rbf_direct(const Side<T>& front, const Side<T>& back, double beta) {
  using P = Pack<T>;
  const P inverse_beta(static_cast<T>(1.0 / beta));
  for (int64_t n = 0; n < front.padded(); ++n) front.gradient[n] = T(0);
  const int64_t whole = front.count / P::kLanes * P::kLanes;
  T ones[P::kLanes];
  for (int i = 0; i < P::kLanes; ++i) ones[i] = whole + i < front.count ? T(1) : T(0);
  const P mask = P::load(ones);
  double total = 0;
  for (int64_t m = 0; m < back.count; ++m) {
    P loss(T(0)), row(T(0));
    for (int64_t n = 0; n < whole; n += P::kLanes)
      direct_pairs<false>(front, n, back, m, inverse_beta, mask, loss, row);
    if (whole < front.count)
      direct_pairs<true>(front, whole, back, m, inverse_beta, mask, loss, row);
    total += static_cast<double>(reduce_add(loss));
    back.gradient[m] = reduce_add(row);
  }
  return total;
}

}  // namespace kdops::KDOPS_ISA
