// PKT: p_ij = c_ij / sum_k c_ik, c_ij = (<x_i, x_j> + 1) / 2, loss mean p_T log((p_T + e)/(p_S + e)).
//
// With c the mean of the N rows and z = x - c, the sum of a row is known beforehand, and
// N p_ij = P_ij = 1 + q_ij, q_ij = w_i <x_i, z_j>, w_i = 1 / (1 + <x_i, c>): one pass over the pairs,
// in which only deviations from equal shares are rounded. With h = e N
//   loss = sum_ij (P_T log((P_T + h) / (P_S + h)) - (q_T - q_S)) / N^3, sum_j q_ij being zero;
//   dloss / d<x_i, x_j> = (E_ij - e_i) w_i / N^3, E = (q_S - q_T + h) / (P_S + h), e_i the mean over
//   j of E_ij P_S,ij. The part of e_i is known only after the pass, and is a vector for all rows.
#pragma once

#include "common/simd/exp.h"
#include "similarity_kl/tiles.h"

namespace kdops::similarity_kl::KDOPS_ISA {

// log(a / b), which keeps its digits where a is nearly b. a, b > 0, a / b a normal number; difference
// is a - b, where the caller knows it better.
//
// With b' = 2^n b, n such that a / b' is in [sqrt(1/2), sqrt(2)):
// log(a / b) = n ln2 + 2 artanh(s), s = (a - b') / (a + b'), a series in s^2 < 0.0295.
template <class T>
inline Pack<T> log_quotient(Pack<T> a, Pack<T> b, Pack<T> difference) {
  using P = Pack<T>;
  using Bits = typename PackTraits<T>::Bits;
  constexpr int kTerms = sizeof(T) == 4 ? 5 : 11;
  const P root(static_cast<T>(0.70710678118654752440)), quotient = a / b;
  const Bits exponent = (reinterpret_cast<Bits>(quotient.r) - reinterpret_cast<Bits>(root.r)) >>
                        ExpTraits<T>::kMantissaBits;
  const P n(__builtin_convertvector(exponent, typename PackTraits<T>::Register));
  const P scaled = b * power_of_two(n);
  const P s = select(n == P(T(0)), difference, a - scaled) / (a + scaled);
  const P square = s * s;
  P series(T(0));
  for (int i = kTerms; i-- > 0;) series = fma(series, square, P(T(2) / static_cast<T>(2 * i + 1)));
  return fma(n, P(static_cast<T>(0.693147180559945309417)), s * series);
}

struct PktRow {
  double loss = 0, shares = 0, weights = 0;  // shares: sum_j E_ij P_S,ij
};

// The deviations q of both networks at some pairs, and what both the loss and the gradient need.
template <class T>
struct Deviations {
  Pack<T> gap, student, teacher;  // q_S - q_T, P_S, P_T

  Deviations(Pack<T> q_s, Pack<T> q_t) : gap(q_s - q_t) {
    const Pack<T> zero(T(0)), one(T(1));  // rounding may leave less than no share
    student = max(zero, one + q_s), teacher = max(zero, one + q_t);
  }
  Pack<T> slope(Pack<T> padding) const { return (gap + padding) / (student + padding); }
};

// The rows of both networks, which meet each other, and h.
template <class T>
struct PktSet {
  Meeting<T> student, teacher;
  T padding;
};

// One row of a tile of `columns` columns from j0: products of the student become weights
// E_ij w_i + E_ji w_j. Of an Entry, lse holds the w.
template <class T>
PktRow pkt_row(T* student, const T* teacher, const PktSet<T>& set, int64_t i, int64_t j0,
               int64_t columns) {
  using P = Pack<T>;
  const Entry<T>&s = set.student.own, &t = set.teacher.own;
  const P h(set.padding), w_s(s.lse[i]), w_t(t.lse[i]), bias_s(s.bias[i]), bias_t(t.bias[i]);
  P loss(T(0)), shares(T(0)), total(T(0));
  for_packs<T>(columns, [&](int64_t j, int lanes) {
    const P x = P::load(student + j), y = P::load(teacher + j);
    const P other_s = P::load(s.lse + j0 + j), other_t = P::load(t.lse + j0 + j);
    const Deviations<T> row((x + P::load(s.bias + j0 + j)) * w_s,
                            (y + P::load(t.bias + j0 + j)) * w_t);
    const Deviations<T> key((x + bias_s) * other_s, (y + bias_t) * other_t);
    const P slope = row.slope(h);
    const P ratio = log_quotient(row.teacher + h, row.student + h, -row.gap);
    const P weight = first_lanes(fma(slope, w_s, key.slope(h) * other_s), lanes);
    weight.store(student + j);
    loss += first_lanes(fma(row.teacher, ratio, row.gap), lanes);
    shares += first_lanes(slope * row.student, lanes);
    total += weight;
  });
  return {static_cast<double>(reduce_add(loss)), static_cast<double>(reduce_add(shares)),
          static_cast<double>(reduce_add(total))};
}

// As pull_block. tiles: room for 2 x kBlock x kTile.
template <class T>
void pkt_block(const PktSet<T>& set, Rows rows, T* tiles, PktRow* results, T* pulled) {
  T *student = tiles, *teacher = tiles + kBlock * kTile;
  const Entry<T>& own = set.student.own;
  for (int64_t j0 = 0; j0 < own.count; j0 += kTile) {
    const int64_t columns = std::min(kTile, own.count - j0), whole = whole_packs<T>(columns);
    multiply(set.student, rows, j0, whole, student);
    multiply(set.teacher, rows, j0, whole, teacher);
    for (int64_t i = 0; i < rows.count(); ++i) {
      const PktRow part =
          pkt_row(student + i * kTile, teacher + i * kTile, set, rows.begin + i, j0, columns);
      results[i].loss += part.loss;
      results[i].shares += part.shares;
      results[i].weights += part.weights;
    }
    if (pulled != nullptr)
      gemm<T>(rows.count(), own.width, columns, T(1), {student, kTile, 1},
              {own.rows + j0 * own.width, own.width, 1}, {pulled, own.width, 1}, j0 > 0);
  }
}

}  // namespace kdops::similarity_kl::KDOPS_ISA
