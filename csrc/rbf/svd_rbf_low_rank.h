// svd_rbf_loss of one item without touching its pairs: O((D_front + D_back) r^2) work.
//
// With values scaled by sqrt(2 / beta) and centred, K(b, f) = exp(-(b - f)^2 / 2) is the inner
// product of features u_j(v) = exp(-v^2 / 2) v^j / sqrt(j!), j < r, where r terms are exact to
// rounding because |b f| is small (singular vectors: r is 6 to 8). Let T_j be the teacher's
// features and D_j the student's minus the teacher's, taken by a recurrence that keeps the digits:
//   D_0 = T_0 expm1(d (s + t) / 2), d = t - s;  D_j = (s D_{j-1} - d T_{j-1}) / sqrt(j).
// Then K_S - K_T = sum_j D_j(b) T_j(f) + T_j(b) D_j(f) + D_j(b) D_j(f), so that loss and gradients
// need only the 2r x 2r Grams of [D, T] over the two sides. All of it is in double. The caller
// checks the outcome's own error estimate and takes the direct kernel where it is too large.
#pragma once

#include "common/simd/exp.h"
#include "rbf/svd_rbf_side.h"

namespace kdops::rbf::KDOPS_ISA {

inline constexpr int kMaxRank = 20;
inline constexpr int kMaxFeatures = 2 * kMaxRank;

// Features [D_0 .. D_{r-1}, T_0 .. T_{r-1}] of one side, rows of `stride` doubles, and their Gram.
struct Features {
  double* rows;
  double* student;  // scaled and centred values
  int64_t count, stride;
  int rank;
  double gram[kMaxFeatures][kMaxFeatures];

  void attach(double* memory, int64_t values, int64_t padded) {
    rows = memory;
    student = memory + kMaxFeatures * padded;
    count = values;
    stride = padded;
  }

  double* difference(int j) const { return rows + j * stride; }
  double* teacher(int j) const { return rows + (rank + j) * stride; }
  static int64_t scratch(int64_t padded) { return (kMaxFeatures + 1) * padded; }
};

// The smallest even rank >= 4 whose first neglected term of exp(x), |x| <= reach, is below
// `tolerance` in the derivative; 0 where kMaxRank does not do (or reach is NaN).
inline int rank_for(double reach, double tolerance) {
  double term = 1;  // reach^(r-1) / (r-1)!
  for (int r = 2; r <= kMaxRank + 1; ++r) {
    term *= reach / (r - 1);
    if (r >= 4 && r % 2 == 0 && term <= tolerance) return r;
  }
  return 0;
}

template <class T>
void make_features(const Side<T>& side, double centre, double unit, Features& f) {
  using P = Pack<double>;
  const P half(0.5);
  for (int64_t i = 0; i < f.stride; i += P::kLanes) {
    double s_in[P::kLanes], d_in[P::kLanes], t_in[P::kLanes], ones[P::kLanes];
    for (int l = 0; l < P::kLanes; ++l) {
      s_in[l] = (static_cast<double>(side.student[i + l]) - centre) * unit;
      t_in[l] = (static_cast<double>(side.teacher[i + l]) - centre) * unit;
      d_in[l] = static_cast<double>(side.shift[i + l]) * unit;
      ones[l] = i + l < side.count ? 1.0 : 0.0;
    }
    const P s = P::load(s_in), t = P::load(t_in), d = P::load(d_in);
    s.store(f.student + i);
    P top = exp(-(half * t * t)) * P::load(ones);
    P difference = top * expm1(half * d * (s + t));
    for (int j = 0; j < f.rank; ++j) {
      difference.store(f.difference(j) + i);
      top.store(f.teacher(j) + i);
      const P weight(1.0 / std::sqrt(j + 1.0));
      difference = (s * difference - d * top) * weight;
      top = t * top * weight;
    }
  }
}

// gram = F F', a tile of kRows x 2 inner products at a time, upper half mirrored.
inline void make_gram(Features& f) {
  using P = Pack<double>;
  const int features = 2 * f.rank;
  for (int a = 0; a < features; a += 4)
    for (int b = a; b < features; b += 2) {
      P sum[4][2];
      for (auto& row : sum) row[0] = row[1] = P(0.0);
      const double *left = f.rows + a * f.stride, *right = f.rows + b * f.stride;
      for (int64_t i = 0; i < f.stride; i += P::kLanes) {
        const P r0 = P::load(right + i), r1 = P::load(right + f.stride + i);
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
          const P l = P::load(left + k * f.stride + i);
          sum[k][0] = fma(l, r0, sum[k][0]);
          sum[k][1] = fma(l, r1, sum[k][1]);
        }
      }
      for (int k = 0; k < 4; ++k)
        for (int c = 0; c < 2; ++c)
          f.gram[a + k][b + c] = f.gram[b + c][a + k] = reduce_add(sum[k][c]);
    }
}

// sum_ij <D_i, D_j>_b <S_i, S_j>_f + 2 <D_i, T_j>_b <S_i, D_j>_f + <T_i, T_j>_b <D_i, D_j>_f with
// S = D + T; `magnitude` is the same sum of absolute values.
inline double loss_from_grams(const Features& back, const Features& front, double& magnitude) {
  const int r = back.rank;
  double loss = 0;
  magnitude = 0;
  for (int i = 0; i < r; ++i)
    for (int j = 0; j < r; ++j) {
      const auto& b = back.gram;
      const auto& f = front.gram;
      const double sd = f[i][j] + f[r + i][j];
      const double ss = sd + f[i][r + j] + f[r + i][r + j];
      const double terms[3] = {b[i][j] * ss, 2 * b[i][r + j] * sd, b[r + i][r + j] * f[i][j]};
      loss += terms[0] + terms[1] + terms[2];
      magnitude += std::fabs(terms[0]) + std::fabs(terms[1]) + std::fabs(terms[2]);
    }
  return loss;
}

// gradient[m] = sum_n (K_S - K_T)[m, n] dK_S[m, n] / db_m: with H_j = sum_i D_i(m) <S_i, S_j> +
// T_i(m) <D_i, S_j> (inner products over the other side), the sum over j of H_j u_j'(m), where
// u_j'(v) = sqrt(j) u_{j-1}(v) - v u_j(v).
template <class T>
void low_rank_gradient(const Features& own, const Features& other, T* gradient) {
  using P = Pack<double>;
  constexpr int kPacks = 4, kStep = kPacks * P::kLanes;
  const int r = own.rank;
  double weight[kMaxRank][kMaxFeatures];  // weight[j]: <S_i, S_j> for all i, then <D_i, S_j>
  for (int j = 0; j < r; ++j)
    for (int i = 0; i < r; ++i) {
      weight[j][r + i] = other.gram[i][j] + other.gram[i][r + j];
      weight[j][i] = weight[j][r + i] + other.gram[r + i][j] + other.gram[r + i][r + j];
    }
  for (int64_t m = 0; m < own.stride; m += kStep) {
    P total[kPacks], before[kPacks];
    for (int p = 0; p < kPacks; ++p) total[p] = before[p] = P(0.0);
    for (int j = 0; j < r; j += 2) {
      P h[2][kPacks];
      for (int p = 0; p < kPacks; ++p) h[0][p] = h[1][p] = P(0.0);
      for (int i = 0; i < 2 * r; ++i) {
        const P w0(weight[j][i]), w1(weight[j + 1][i]);
#pragma GCC unroll 4
        for (int p = 0; p < kPacks; ++p) {
          const P value = P::load(own.rows + i * own.stride + m + p * P::kLanes);
          h[0][p] = fma(value, w0, h[0][p]);
          h[1][p] = fma(value, w1, h[1][p]);
        }
      }
      for (int k = 0; k < 2; ++k) {
        const P root(std::sqrt(static_cast<double>(j + k)));
        for (int p = 0; p < kPacks; ++p) {
          const int64_t at = m + p * P::kLanes;
          const P u = P::load(own.difference(j + k) + at) + P::load(own.teacher(j + k) + at);
          const P slope = root * before[p] - P::load(own.student + at) * u;
          total[p] = fma(h[k][p], slope, total[p]);
          before[p] = u;
        }
      }
    }
    for (int p = 0; p < kPacks; ++p)
      for (int l = 0; l < P::kLanes; ++l)
        gradient[m + p * P::kLanes + l] = static_cast<T>(total[p].lane(l));
  }
}

}  // namespace kdops::rbf::KDOPS_ISA
