// Rows before and after the products: how they are compared, which centre is taken from them, and
// the gradient's way back. All sums are in double, whatever the rows are: they cost little beside
// N^2 products, and rows that lie close together keep their digits.
//
// A softmax does not change when all its logits move together. So with any centre c the logits
// <x_i, y_j> may be <x_i - c, y_j - c> + <y_j - c, c>, whose second part is a bias of the key. Where
// all rows lie close to their mean, that is what keeps the digits of their differences.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/shared/unit_row.h"
#include "similarity_kl/problem.h"

namespace kdops::similarity_kl::KDOPS_ISA {

inline constexpr double kNormPadding = 1e-7;  // of Norm::padded, as published

template <class In>
const In* row_of(const Given<In>& g, int64_t b, int64_t i) {
  const int64_t place = g.places == nullptr ? i : g.places[b * g.count + i];
  return g.data + (b * g.count + place) * g.width;
}

// Sum of term(k), k < count, in eight sums that run side by side.
template <class Term>
double sum_of(int64_t count, const Term& term) {
  double parts[8] = {};
  int64_t k = 0;
  for (; k + 8 <= count; k += 8)
    for (int l = 0; l < 8; ++l) parts[l] += term(k + l);
  for (; k < count; ++k) parts[0] += term(k);
  double total = 0;
  for (const double part : parts) total += part;
  return total;
}

inline RowFactors factors_of(Norm norm, double scale, double square, double most) {
  if (norm == Norm::none) return {1, 1, 1};
  const UnitFactors<double> f = unit_factors(scale, square);
  if (norm == Norm::unit) return {scale, f.unit, std::min(f.inverse, most)};
  if (f.inverse == 0) return {1, 0, 0};
  const double inverse = 1 / (1 / f.inverse + kNormPadding);
  return {scale, f.unit / f.inverse * inverse, inverse};
}

// Factors and longest row of batch entry b.
template <class In>
void measure(const Given<In>& g, Norm norm, int64_t b) {
  double longest = 0;
  for (int64_t i = 0; i < g.used[b]; ++i) {
    const In* x = row_of(g, b, i);
    In top = 0;
    for (int64_t k = 0; k < g.width; ++k) top = std::max(top, std::fabs(x[k]));
    const double scale = row_scale(static_cast<double>(top));
    const double square = sum_of(g.width, [&](int64_t k) {
      const double value = static_cast<double>(x[k]) * scale;
      return value * value;
    });
    g.factors[b * g.count + i] =
        factors_of(norm, scale, square, static_cast<double>(std::numeric_limits<In>::max()));
    longest = std::max(longest, norm == Norm::none ? std::sqrt(square) / scale : 1.0);
  }
  g.longest[b] = longest;
}

// The mean of the compared rows. Where it is a small part of them, digits are kept without it, and
// one far row would move all others: it is zero then, unless `always`.
template <class In>
void find_centre(const Given<In>& g, int64_t b, bool always, double* centre) {
  std::fill_n(centre, g.width, 0.0);
  const int64_t count = g.used[b];
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) {
    const In* x = row_of(g, b, i);
    const auto [scale, unit, inverse] = g.factors[b * g.count + i];
    for (int64_t k = 0; k < g.width; ++k) centre[k] += static_cast<double>(x[k]) * scale * unit;
    if (always) continue;
    squares += sum_of(g.width, [&, scale = scale, unit = unit](int64_t k) {
      const double value = static_cast<double>(x[k]) * scale * unit;
      return value * value;
    });
  }
  const double share = 1.0 / static_cast<double>(std::max<int64_t>(count, 1));
  for (int64_t k = 0; k < g.width; ++k) centre[k] *= share;
  const double square = sum_of(g.width, [&](int64_t k) { return centre[k] * centre[k]; });
  // this order takes no centre where it is NaN or Inf
  if (!always && !(square >= 0.75 * share * squares && square - square == 0))
    std::fill_n(centre, g.width, 0.0);
}

// Panels of one batch entry: the row of panel p and entry k begins at (p width + k) kPanel.
template <class T>
T* panel_entry(T* panels, int64_t width, int64_t i) {
  return panels + i / kPanel * width * kPanel + i % kPanel;
}

// Puts the rows of batch entry b in their places.
template <class In, class T>
void place(const Given<In>& g, const Placed<T>& to, const double* centre, double rate, int64_t b) {
  const int64_t width = g.width, count = g.used[b], end = padded(count);
  T* rows = to.rows + b * g.count * width;
  T* panels = to.panels == nullptr ? nullptr : to.panels + b * padded(g.count) * width;
  T* bias = to.bias == nullptr ? nullptr : to.bias + b * padded(g.count);
  for (int64_t i = 0; i < count; ++i, rows += width) {
    const In* x = row_of(g, b, i);
    const auto [scale, unit, inverse] = g.factors[b * g.count + i];
    const auto centred = [&, scale = scale, unit = unit](int64_t k) {
      return static_cast<double>(x[k]) * scale * unit - centre[k];
    };
    for (int64_t k = 0; k < width; ++k) rows[k] = static_cast<T>(centred(k));
    if (bias != nullptr)  // of rows that are not rounded: their centre is much longer than they are
      bias[i] =
          static_cast<T>(rate * sum_of(width, [&](int64_t k) { return centred(k) * centre[k]; }));
    if (panels == nullptr) continue;
    T* column = panel_entry(panels, width, i);
    for (int64_t k = 0; k < width; ++k) column[k * kPanel] = rows[k];
  }
  for (int64_t i = count; i < end; ++i) {
    if (bias != nullptr) bias[i] = kExcluded<T>;
    if (panels == nullptr) continue;
    T* column = panel_entry(panels, width, i);
    for (int64_t k = 0; k < width; ++k) column[k * kPanel] = T(0);
  }
}

// A centred row, its RowFactors::inverse, and what the products gave to it: pulled = sum_j w_j y_j
// of centred rows, total = sum_j w_j.
template <class T, class P>
struct Pulled {
  const T* centred;
  double inverse;
  const P* pulled;
  double total;
};

// The gradient of a row as it was given, times `factor`. For unit rows the centre is the row itself
// minus its centred form, and the row's own direction has no part: sum_j w_j (y_j - x) is left. A
// padded norm leaves rows shorter than one, by `share`, and of their direction 1 - share.
template <class T, class P, class In>
void finish_row(Norm norm, const Pulled<T, P>& p, const double* centre, int64_t width,
                double factor, In* out) {
  if (norm == Norm::none) {
    for (int64_t k = 0; k < width; ++k)
      out[k] = static_cast<In>(factor * (static_cast<double>(p.pulled[k]) + p.total * centre[k]));
    return;
  }
  const double share = norm == Norm::unit ? 1 : 1 - kNormPadding * p.inverse;
  const double square = std::max(share * share, 1e-300);
  const auto moved = [&](int64_t k) {
    return static_cast<double>(p.pulled[k]) - p.total * static_cast<double>(p.centred[k]);
  };
  const auto direction = [&](int64_t k) { return static_cast<double>(p.centred[k]) + centre[k]; };
  const double along = sum_of(width, [&](int64_t k) { return moved(k) * direction(k); });
  const double part = along / square - (1 - share) * (along / square + p.total);
  const double outer = factor * p.inverse;
  for (int64_t k = 0; k < width; ++k)
    out[k] = static_cast<In>(outer * (moved(k) - part * direction(k)));
}

}  // namespace kdops::similarity_kl::KDOPS_ISA
