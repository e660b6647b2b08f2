// Similarities of a block of rows with a tile of others, and the two passes that use them.
//
// Statistics: log2 of the sum of the exponentials of every row, a running maximum taken out. Pull:
// the tile's similarities of both networks again, from them the loss and the weights p_S - p_T of
// the gradient, which meet the rows at once. A block owns its rows of the gradient: what its rows
// get as keys of others comes from the same products, with the others' statistics.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "common/blas/gemm.h"
#include "common/simd/exp.h"
#include "common/simd/pack_loop.h"
#include "similarity_kl/problem.h"

namespace kdops::similarity_kl::KDOPS_ISA {

// The placed rows of one batch entry.
template <class T>
struct Entry {
  const T *rows, *panels, *bias, *lse;
  int64_t count, width;
};

// Rows of one network and those that they meet: rate <own_i, other_j> of every pair, or of all but
// i = j.
template <class T>
struct Meeting {
  Entry<T> own, other;
  double rate;
  bool without_self;
};

// Rows begin..end.
struct Rows {
  int64_t begin, end;

  int64_t count() const { return end - begin; }
};

template <class T>
Entry<T> entry_of(const Placed<T>& set, int64_t b) {
  const int64_t at = b * padded(set.count);
  return {set.rows + b * set.count * set.width,
          set.panels == nullptr ? nullptr : set.panels + at * set.width,
          set.bias == nullptr ? nullptr : set.bias + at,
          set.lse == nullptr ? nullptr : set.lse + at,
          set.used[b],
          set.width};
}

// Block `item` of the first `used` rows; it may begin behind them.
inline Rows block_of(int64_t item, int64_t used) {
  return {item * kBlock, std::min((item + 1) * kBlock, used)};
}

// `count` rounded up to whole packs, for which arrays of padded(count) have room.
template <class T>
int64_t whole_packs(int64_t count) {
  return (count + Pack<T>::kLanes - 1) / Pack<T>::kLanes * Pack<T>::kLanes;
}

// The products of some rows with others from j0 on, `columns` of them, whole packs: rows of out,
// kTile apart.
template <class T>
void multiply(const Meeting<T>& p, Rows rows, int64_t j0, int64_t columns, T* out) {
  const int64_t width = p.own.width;
  const View<const T> left{p.own.rows + rows.begin * width, width, 1};
  for (int64_t j = 0; j < columns; j += kPanel)
    gemm<T>(rows.count(), std::min(kPanel, columns - j), width, static_cast<T>(p.rate), left,
            {p.other.panels + (j0 + j) * width, kPanel, 1}, {out + j, kTile, 1});
  if (!p.without_self) return;
  for (int64_t i = std::max(rows.begin, j0); i < std::min(rows.end, j0 + columns); ++i)
    out[(i - rows.begin) * kTile + i - j0] = kExcluded<T>;
}

// Where the products of a tile of a block are: kept ones of all tiles lie one after the other.
template <class T>
T* tile_at(T* tiles, bool kept, int64_t j0) {
  return kept ? tiles + j0 * kBlock : tiles;
}

// A sum of exponentials: 2^top * sum.
template <class T>
struct ExponentialSum {
  T top = std::numeric_limits<T>::lowest();
  double sum = 0;

  // `columns` products, whole packs.
  void add(const T* products, const T* bias, int64_t columns) {
    using P = Pack<T>;
    const auto logit = [&](int64_t j) { return P::load(products + j) + P::load(bias + j); };
    P highest(top);
    for (int64_t j = 0; j < columns; j += P::kLanes) highest = max(logit(j), highest);
    const T raised = reduce_max(highest);
    if (raised > top) {
      sum *= std::exp2(static_cast<double>(top) - static_cast<double>(raised));
      top = raised;
    }
    P part(T(0));
    for (int64_t j = 0; j < columns; j += P::kLanes) part += exp2_of_negative(logit(j) - P(top));
    sum += static_cast<double>(reduce_add(part));
  }
  double log2() const { return static_cast<double>(top) + std::log2(sum); }
};

// log2 of the sums of some rows; tiles: room for kBlock x kTile, or as often where `kept`.
template <class T>
void statistics_block(const Meeting<T>& p, Rows rows, T* tiles, bool kept, double* logs) {
  ExponentialSum<T> sums[kBlock];
  const int64_t end = whole_packs<T>(p.other.count);
  for (int64_t j0 = 0; j0 < end; j0 += kTile) {
    const int64_t columns = std::min(kTile, end - j0);
    T* tile = tile_at(tiles, kept, j0);
    multiply(p, rows, j0, columns, tile);
    for (int64_t i = 0; i < rows.count(); ++i)
      sums[i].add(tile + i * kTile, p.other.bias + j0, columns);
  }
  for (int64_t i = 0; i < rows.count(); ++i) logs[rows.begin + i] = sums[i].log2();
}

// What turns products into logarithms of shares, both of a row (keys' biases, own sums) and of a key
// (own biases, rows' sums).
template <class T>
struct Shifts {
  T own_bias_s = 0, own_bias_t = 0, own_lse = 0, own_gap = 0;
  const T *bias_s = nullptr, *bias_t = nullptr, *lse = nullptr, *gap = nullptr;

  Shifts(const Meeting<T>& s, const Meeting<T>& t, int64_t i, int64_t j0, Sides sides) {
    if (sides != Sides::keys) {
      own_lse = t.own.lse[i], own_gap = s.own.lse[i];
      bias_s = s.other.bias + j0, bias_t = t.other.bias + j0;
    }
    if (sides != Sides::rows) {
      own_bias_s = s.own.bias[i], own_bias_t = t.own.bias[i];
      lse = t.other.lse + j0, gap = s.other.lse + j0;
    }
  }
};

// Of two shares p and q: p - q without cancellation, and p log(p / q) - (p - q), which is never
// negative and sums up to the KL divergence, since the shares of both sum up to one. In float the
// quotient comes from logits, whose difference has more digits than that of the shares' logarithms;
// in double, where one network's logits may be so much larger that the other's vanish in a
// difference, it does not.
template <class T>
struct Divergence {
  Pack<T> difference, loss;

  // By Placed::lse of teacher and student.
  Divergence(Pack<T> student, Pack<T> teacher, Pack<T> teacher_lse, Pack<T> student_lse) {
    using P = Pack<T>;
    const P log_p = teacher - teacher_lse;
    P log_q, gap;  // gap: log2 of p / q
    if constexpr (std::is_same_v<T, double>) {
      log_q = student - student_lse;
      gap = log_p - log_q;
    } else {
      gap = (teacher - student) - student_lse;
      log_q = log_p - gap;
    }
    const P zero(T(0));
    P far;
    const P lost = exp2m1_and_exp2(-abs(gap), far);
    const P base = exp2_of_negative(max(log_p, log_q));
    difference = copysign(base * lost, gap);
    const P p = select(gap < zero, base * far, base);
    loss = p * gap * P(static_cast<T>(0.693147180559945309417)) - difference;
  }
  static Divergence of_row(Pack<T> s, Pack<T> t, const Shifts<T>& by, int64_t j) {
    const Pack<T> student = s + Pack<T>::load(by.bias_s + j);
    const Pack<T> teacher = t + Pack<T>::load(by.bias_t + j);
    return {student, teacher, Pack<T>(by.own_lse), Pack<T>(by.own_gap)};
  }
  static Divergence of_key(Pack<T> s, Pack<T> t, const Shifts<T>& by, int64_t j) {
    const Pack<T> student = s + Pack<T>(by.own_bias_s), teacher = t + Pack<T>(by.own_bias_t);
    return {student, teacher, Pack<T>::load(by.lse + j), Pack<T>::load(by.gap + j)};
  }
};

struct RowResult {
  double loss = 0, weights = 0;
};

// One row of a tile: products of both networks; those of the student become weights p_S - p_T.
template <Sides kSides, class T>
RowResult weigh(T* student, const T* teacher, int64_t columns, const Shifts<T>& by) {
  using P = Pack<T>;
  P loss(T(0)), total(T(0));
  for (int64_t j = 0; j < columns; j += P::kLanes) {
    const P s = P::load(student + j), t = P::load(teacher + j);
    P weight(T(0));
    if constexpr (kSides != Sides::keys) {
      const auto found = Divergence<T>::of_row(s, t, by, j);
      weight -= found.difference;
      loss += found.loss;
    }
    if constexpr (kSides != Sides::rows) weight -= Divergence<T>::of_key(s, t, by, j).difference;
    weight.store(student + j);
    total += weight;
  }
  return {static_cast<double>(reduce_add(loss)), static_cast<double>(reduce_add(total))};
}

// The products of both networks: their room, and whether the first pass kept them there.
template <class T>
struct Tiles {
  T *student, *teacher;
  bool kept;
};

// Adds up `results`, one for each of some rows, and writes sum_j w_ij other_j to `pulled` (rows,
// width) unless it is null.
template <Sides kSides, class T>
void pull_block(const Meeting<T>& s, const Meeting<T>& t, Rows rows, const Tiles<T>& tiles,
                RowResult* results, T* pulled) {
  const int64_t width = s.own.width, count = s.other.count, end = whole_packs<T>(count);
  if (end == 0 && pulled != nullptr) std::fill_n(pulled, rows.count() * width, T(0));
  for (int64_t j0 = 0; j0 < end; j0 += kTile) {
    const int64_t columns = std::min(kTile, end - j0);
    T* student = tile_at(tiles.student, tiles.kept, j0);
    T* teacher = tile_at(tiles.teacher, tiles.kept, j0);
    if (!tiles.kept) {
      multiply(s, rows, j0, columns, student);
      multiply(t, rows, j0, columns, teacher);
    }
    for (int64_t i = 0; i < rows.count(); ++i) {
      const Shifts<T> shifts(s, t, rows.begin + i, j0, kSides);
      const RowResult part =
          weigh<kSides>(student + i * kTile, teacher + i * kTile, columns, shifts);
      results[i].loss += part.loss;
      results[i].weights += part.weights;
    }
    if (pulled != nullptr)
      gemm<T>(rows.count(), width, std::min(columns, count - j0), T(1), {student, kTile, 1},
              {s.other.rows + j0 * width, width, 1}, {pulled, width, 1}, j0 > 0);
  }
}

}  // namespace kdops::similarity_kl::KDOPS_ISA
