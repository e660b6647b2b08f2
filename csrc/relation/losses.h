// Rows of rkd_distance and of similarity: elementwise work on N x N matrices, with sums per row in
// double so that a later sum over rows has one fixed order.
#pragma once

#include "relation/rows.h"

namespace kdops::relation::KDOPS_ISA {

template <class T>
void distance_sums(const T* d, int64_t n, double* sums, double* counts, int64_t begin,
                   int64_t end) {
  using P = Pack<T>;
  for (int64_t i = begin; i < end; ++i) {
    P sum(T(0)), count(T(0));
    for_packs<T>(n, [&](int64_t j, int lanes) {
      const P value = load_some(d + i * n + j, lanes);
      sum += value;
      count += select(value == P(T(0)), P(T(0)), P(T(1)));
    });
    sums[i] = static_cast<double>(reduce_add(sum));
    counts[i] = static_cast<double>(reduce_add(count));
  }
}

template <class P>
inline P huber_slope(P difference) {
  return max(min(difference, P(1)), P(-1));
}

template <class T>
void distance_losses(const DistanceLosses<T>& problem, int64_t begin, int64_t end) {
  using P = Pack<T>;
  const DistancePair<T>& d = problem.d;
  for (int64_t i = begin; i < end; ++i) {
    P loss(T(0)), slope(T(0));
    for_packs<T>(d.n, [&](int64_t j, int lanes) {
      const int64_t at = i * d.n + j;
      const P ratio = load_some(d.student + at, lanes) * P(d.inverse_mean_s);
      const P difference = ratio - load_some(d.teacher + at, lanes) * P(d.inverse_mean_t);
      const P h = huber_slope(difference);
      loss = fma(h, difference - P(T(0.5)) * h, loss);
      slope = fma(h, ratio, slope);
    });
    problem.losses[i] = static_cast<double>(reduce_add(loss));
    problem.slopes[i] = static_cast<double>(reduce_add(slope));
  }
}

template <class T>
void distance_laplacian(const DistanceLaplacian<T>& problem, int64_t begin, int64_t end) {
  using P = Pack<T>;
  constexpr T kLeast = std::numeric_limits<T>::min();  // a finite reciprocal
  const DistancePair<T>& d = problem.d;
  const T* sizes = problem.sizes;
  for (int64_t i = begin; i < end; ++i) {
    P sum(T(0));
    Cancellation<T> cancellation;
    for_packs<T>(d.n, [&](int64_t j, int lanes) {
      const int64_t at = i * d.n + j;
      const P own = load_some(d.student + at, lanes);
      const P h = huber_slope(own * P(d.inverse_mean_s) -
                              load_some(d.teacher + at, lanes) * P(d.inverse_mean_t));
      const P pull = P(problem.scale) * (h - P(problem.shift)) / max(P(kLeast), own);
      const P weight = select(own == P(T(0)), P(T(0)), pull);
      cancellation.add(abs(weight), P(sizes[i]) + load_some(sizes + j, lanes), own);
      sum += weight;
      store_some(-weight, d.student + at, lanes);
    });
    d.student[i * d.n + i] = reduce_add(sum);
    problem.lossy[i] = cancellation.lossy();
  }
}

// By the rule of common/shared/unit_row.h.
template <class T>
inline T inverse_norm(const T* row, int64_t n) {
  const T scale = row_scale(largest_size(row, n));
  return unit_factors(scale, scaled_square(row, n, scale)).inverse;
}

// With u the student's unit row and e = u - teacher's: dL/dG = (e - (e . u) u) / |G|.
template <class T>
void similarity_rows(const T* student, const T* teacher, int64_t n, T scale, double* losses,
                     SimilarityFactors<T> out, int64_t begin, int64_t end) {
  using P = Pack<T>;
  for (int64_t i = begin; i < end; ++i) {
    const T *row = student + i * n, *other = teacher + i * n;
    const T inverse_s = inverse_norm(row, n), inverse_t = inverse_norm(other, n);
    P loss(T(0)), along(T(0));
    for_packs<T>(n, [&](int64_t j, int lanes) {
      const P unit = load_some(row + j, lanes) * P(inverse_s);
      const P error = unit - load_some(other + j, lanes) * P(inverse_t);
      loss = fma(error, error, loss);
      along = fma(error, unit, along);
    });
    losses[i] = static_cast<double>(reduce_add(loss));
    out.student[i] = inverse_s * (1 - reduce_add(along));
    out.teacher[i] = inverse_t;
    out.factor[i] = scale * inverse_s;
  }
}

template <class T>
void similarity_weights(T* student, const T* teacher, int64_t n, SimilarityFactors<T> known,
                        int64_t begin, int64_t end) {
  using P = Pack<T>;
  for (int64_t i = begin; i < end; ++i) {
    const P row_s(known.student[i]), row_t(known.teacher[i]), factor(known.factor[i]);
    for_packs<T>(n, [&](int64_t j, int lanes) {
      const P s = load_some(student + i * n + j, lanes), t = load_some(teacher + i * n + j, lanes);
      const P across = s * row_s - t * row_t;
      const P down =
          s * load_some(known.student + j, lanes) - t * load_some(known.teacher + j, lanes);
      const P both = fma(factor, across, load_some(known.factor + j, lanes) * down);
      store_some(both, student + i * n + j, lanes);
    });
  }
}

}  // namespace kdops::relation::KDOPS_ISA
