// Rows of the pairwise ops: unit rows, weights of distances, and the three dimensions of angles.
#pragma once

#include "common/simd/unit_vector.h"
#include "relation/rows.h"

namespace kdops::relation::KDOPS_ISA {

// See common/shared/unit_row.h for the rule.
template <class T>
void unit_rows(Rows<T> x, T* out, T* inverse, int64_t begin, int64_t end) {
  using P = Pack<T>;
  for (int64_t i = begin; i < end; ++i) {
    const T* row = x.at(i);
    const T scale = row_scale(largest_size(row, x.length));
    const UnitFactors<T> factors = unit_factors(scale, scaled_square(row, x.length, scale));
    inverse[i] = factors.inverse;
    for_packs<T>(x.length, [&](int64_t c, int lanes) {
      const P value = load_some(row + c, lanes) * P(scale) * P(factors.unit);
      store_some(value, out + i * x.length + c, lanes);
    });
  }
}

template <class T>
void unit_rows_backward(Rows<T> unit, const T* inverse, T* grad, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const T* u = unit.at(i);
    T* g = grad + i * unit.length;
    keep_across(u, short_inner(u, g, unit.length), inverse[i], unit.length, g);
  }
}

template <class T>
void distance_weights(const PairLengths<T>& pairs, const T* grad, T* out, int64_t begin,
                      int64_t end) {
  using P = Pack<T>;
  constexpr T kLeast = std::numeric_limits<T>::min();  // a finite reciprocal
  const int64_t m = pairs.m;
  for (int64_t i = begin; i < end; ++i)
    for_packs<T>(m, [&](int64_t j, int lanes) {
      P value = load_some(grad + i * m + j, lanes);
      if (pairs.squared) {
        value = value / P(pairs.unit);
      } else {
        const P distance = load_some(pairs.d + i * m + j, lanes) * P(pairs.unit);
        const auto zero = distance == P(T(0));
        value = select(zero, P(T(0)), P(T(0.5)) * value / max(P(kLeast), distance));
      }
      store_some(value, out + i * m + j, lanes);
    });
}

template <class T>
void mark_lossy(const PairLengths<T>& pairs, const T* w, uint8_t* lossy, int64_t begin,
                int64_t end) {
  using P = Pack<T>;
  const int64_t m = pairs.m;
  for (int64_t i = begin; i < end; ++i) {
    Cancellation<T> cancellation;
    for_packs<T>(m, [&](int64_t j, int lanes) {
      const P d = load_some(pairs.d + i * m + j, lanes);
      P weight = abs(load_some(w + i * m + j, lanes));
      if (pairs.itself && i >= j && i < j + lanes) weight.set_lane(static_cast<int>(i - j), T(0));
      cancellation.add(weight, P(pairs.x_sizes[i]) + load_some(pairs.y_sizes + j, lanes),
                       (pairs.squared ? sqrt(d) : d) * P(pairs.unit));
    });
    lossy[i] = cancellation.lossy();
  }
}

template <class T>
void finish_rows(const Finish<T>& f, int64_t begin, int64_t end) {
  const int64_t length = f.x.length, m = f.y.count;
  for (int64_t i = begin; i < end; ++i) {
    T* row = f.out + i * length;
    T factor = f.unit;
    if (f.lossy[i]) {
      std::fill(row, row + length, T(0));
      add_differences(f.w + i * m, m, f.x.at(i), f.y.data, f.y.stride, length, f.scale, row);
      factor *= f.factor;
    }
    for (int64_t c = 0; c < length; ++c) row[c] *= factor;
  }
}

template <class T>
void laplacian(T* v, int64_t n, T scale, int64_t begin, int64_t end) {
  using P = Pack<T>;
  for (int64_t i = begin; i < end; ++i) {
    T* row = v + i * n;
    row[i] = 0;
    const T sum = short_sum(row, n);
    for_packs<T>(n, [&](int64_t j, int lanes) {
      store_some(P(-scale) * load_some(row + j, lanes), row + j, lanes);
    });
    row[i] = scale * sum;
  }
}

template <class T>
void combine_rows(const T* w, int64_t m, Rows<T> x, T* product, int64_t begin, int64_t end) {
  using P = Pack<T>;
  for (int64_t i = begin; i < end; ++i) {
    const T sum = short_sum(w + i * m, m);
    const T* row = x.at(i);
    T* target = product + i * x.length;
    for_packs<T>(x.length, [&](int64_t c, int lanes) {
      const P rest = P(sum) * load_some(row + c, lanes) - load_some(target + c, lanes);
      store_some(P(T(2)) * rest, target + c, lanes);
    });
  }
}

// cos_ijk = r_ik (a_ij - 2 r_ij a_jk^2) + r_ij a_ik, see angle.h.
template <class T>
inline Pack<T> angle_cosines(const T* inverse, const T* half, int64_t n, int64_t i, int64_t j,
                             int64_t k, int lanes) {
  using P = Pack<T>;
  const P r(inverse[i * n + j]), a(half[i * n + j]);
  const P opposite = load_some(half + j * n + k, lanes);
  const P inner = a - P(T(2)) * r * opposite * opposite;
  return fma(load_some(inverse + i * n + k, lanes), inner, r * load_some(half + i * n + k, lanes));
}

template <class T>
void angles(const T* inverse, const T* half, int64_t n, T* out, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = 0; j < n; ++j)
      for_packs<T>(n, [&](int64_t k, int lanes) {
        const Pack<T> cosines = angle_cosines(inverse, half, n, i, j, k, lanes);
        store_some(cosines, out + (i * n + j) * n + k, lanes);
      });
}

// What anchor i adds to dL/dD: entry (i, j, k) with cotangent g adds r_ij g (r_ik - cos r_ij) / 2 to
// w_ij, the same with j and k exchanged to w_ik, and -g r_ij r_ik / 2 to m_jk. r and w are rows i;
// cosine(j, k, lanes) and cotangent(j, k, lanes, cosine).
template <class T, class Cosine, class Cotangent>
inline void anchor_weights(int64_t n, const T* r, T* w, T* m, const Cosine& cosine_of,
                           const Cotangent& cotangent_of) {
  using P = Pack<T>;
  const P minus_half(T(-0.5));
  std::fill(w, w + n, T(0));
  for (int64_t j = 0; j < n; ++j) {
    const P rj(r[j]);
    P sum(T(0));
    for_packs<T>(n, [&](int64_t k, int lanes) {
      const P rk = load_some(r + k, lanes);
      const P cosine = cosine_of(j, k, lanes), g = cotangent_of(j, k, lanes, cosine);
      sum = fma(g, rk - cosine * rj, sum);
      store_some(fma(g, rj - cosine * rk, load_some(w + k, lanes)), w + k, lanes);
      store_some(fma(minus_half * g * rj, rk, load_some(m + j * n + k, lanes)), m + j * n + k,
                 lanes);
    });
    w[j] += reduce_add(sum);
  }
  for (int64_t j = 0; j < n; ++j) w[j] *= r[j] / 2;
}

template <class T>
void angles_backward(const T* grad, const T* inverse, const T* half, int64_t n, T* w, T* m,
                     int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i)
    anchor_weights(
        n, inverse + i * n, w + i * n, m,
        [&](int64_t j, int64_t k, int lanes) {
          return angle_cosines(inverse, half, n, i, j, k, lanes);
        },
        [&](int64_t j, int64_t k, int lanes, Pack<T>) {
          return load_some(grad + (i * n + j) * n + k, lanes);
        });
}

}  // namespace kdops::relation::KDOPS_ISA
