// The full SVD of a range of matrices: square ones directly, tall and wide ones through their Gram
// matrix where that is accurate enough, otherwise through Householder QR.
//
// Squaring the condition number costs orthogonality, how much is known once the eigenvalues are
// (gram_rule.h): a matrix that fails the test goes to a list, and the list through QR. The choice
// is made matrix by matrix, so that no result depends on its neighbours. This file: the class and
// square matrices; the other two routes are in gram_route.h and qr_route.h, which users include.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "svd/full/cpu/signs.h"
#include "svd/full/cpu/square_hybrid.h"
#include "svd/full/cpu/square_lanes.h"
#include "svd/full/cpu/tall_qr.h"
#include "svd/full/full_simd.h"
#include "svd/shared/gram_rule.h"

namespace kdops::svd::KDOPS_ISA {

template <class T>
class FullSvd {
 public:
  explicit FullSvd(const SvdProblem<T>& problem)
      : m_(problem.m),
        n_(problem.n),
        small_(std::min(m_, n_)),
        long_(std::max(m_, n_)),
        direct_(m_ == n_ && (!problem.fast || n_ <= kLanesOrder)),
        width_(product_width<T>(small_)),
        padded_((small_ + kLanes - 1) / kLanes * kLanes),
        out_(problem),
        matrices_(direct_ ? 0 : static_cast<int64_t>(most_lanes()) * small_ * small_),
        squares_(direct_ ? 0 : static_cast<int64_t>(small_) * width_ * 3),
        keys_(small_),
        factor_(small_),
        order_(small_) {}

  // The first `count` matrices of the problem, row by row.
  void run(int64_t count) {
    const T* a = out_.a;
    if (direct_) return run_square(a, count);
    std::vector<int64_t> rest;
    if (out_.fast || worth_a_gram(long_, small_))
      run_gram(a, count, rest);
    else
      for (int64_t b = 0; b < count; ++b) rest.push_back(b);
    if (!rest.empty()) run_qr(a, rest);
  }

 private:
  static constexpr int kLanes = Pack<T>::kLanes;

  int64_t size() const { return static_cast<int64_t>(m_) * n_; }
  T* u(int64_t b) const { return out_.u + b * m_ * small_; }
  T* s(int64_t b) const { return out_.s + b * small_; }
  T* vh(int64_t b) const { return out_.vh + b * small_ * n_; }
  bool wide() const { return m_ < n_; }
  bool vectors() const { return out_.vh != nullptr; }
  int most_lanes() const { return small_ > kLargestInLanes ? 1 : kLanes; }

  void run_square(const T* a, int64_t count);
  void run_gram(const T* a, int64_t count, std::vector<int64_t>& rest);
  void run_qr(const T* a, const std::vector<int64_t>& rest);

  int gram_group() const;
  bool gram_matrix(const T* a, T* gram);
  bool finish_gram(const T* a, int64_t b, SquareBatch<T>& eigen, int lane);
  void tall_from_gram(const T* a, int64_t b, const T* v, int stride);
  void wide_from_gram(const T* a, int64_t b, const T* v, int stride);
  void tall_from_qr(int64_t b, const TallQr<T>& qr, SquareBatch<T>& square, int lane);
  void wide_from_qr(int64_t b, const TallQr<T>& qr, SquareBatch<T>& square, int lane, T* tall);

  // Sorts |values| into order_ and writes S.
  void write_values(const T* values, T scale, int64_t b) {
    for (int j = 0; j < small_; ++j) keys_[j] = std::fabs(values[j]);
    sort_descending(keys_.get(), small_, order_.get());
    for (int j = 0; j < small_; ++j) s(b)[j] = keys_[order_[j]] * scale;
  }
  void write_nan(int64_t b) {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    std::fill_n(s(b), small_, nan);
    if (out_.u != nullptr) std::fill_n(u(b), static_cast<int64_t>(m_) * small_, nan);
    if (vectors()) std::fill_n(vh(b), static_cast<int64_t>(small_) * n_, nan);
  }
  // Signs of rows `row(j)` of the right vectors into factor_.
  template <class Row>
  void choose_signs(bool choose, int length, const Row& row) {
    for (int j = 0; j < small_; ++j) factor_[j] = choose ? canonical_sign(row(j), length) : T(1);
  }
  // The values of a square core are signed: the left vector takes the sign.
  void sign_left(const T* values) {
    for (int j = 0; j < small_; ++j)
      if (values[order_[j]] < T(0)) factor_[j] = -factor_[j];
  }

  const int m_, n_, small_, long_;
  const bool direct_;  // square; up to kLanesOrder the accurate route is the faster one as well
  const int width_, padded_;
  const SvdProblem<T> out_;
  Scratch<T> matrices_, squares_, keys_, factor_;
  Scratch<int> order_;
};

template <class T>
void FullSvd<T>::run_square(const T* a, int64_t count) {
  SquareBatch<T> square(n_, out_.u != nullptr, vectors(), out_.canonical, true);
  for (int64_t b0 = 0; b0 < count; b0 += square.group) {
    const int lanes = static_cast<int>(std::min<int64_t>(square.group, count - b0));
    const Target<T> target{out_.u != nullptr ? u(b0) : nullptr, s(b0),
                           vectors() ? vh(b0) : nullptr};
    square.singular(a + b0 * size(), size(), lanes, &target);
    for (int l = 0; l < lanes; ++l) {
      const int64_t b = b0 + l;
      if (!square.finite[l]) {
        write_nan(b);
        continue;
      }
      if (square.is_sorted) continue;
      write_values(square.values(l), square.scale[l], b);
      if (!vectors()) continue;
      const T* v = square.v(l);
      choose_signs(out_.canonical, n_, [&](int j) { return v + order_[j] * square.stride; });
      write_rows(v, square.stride, order_.get(), factor_.get(), n_, n_, vh(b), n_);
      if (out_.u == nullptr) continue;
      sign_left(square.values(l));
      write_columns(square.u(l), square.stride, order_.get(), factor_.get(), n_, n_, u(b), n_);
    }
  }
}

}  // namespace kdops::svd::KDOPS_ISA
