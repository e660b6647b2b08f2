// FullSvd through Householder QR of the tall matrix (A, or its transpose where A is wide): right
// for every condition number, rank and scale.
#pragma once

#include "svd/full/cpu/full.h"

namespace kdops::svd::KDOPS_ISA {

// tall (padded rows) = factor * A, or its transpose; zero for a matrix with NaN or Inf.
template <class T>
void load_tall(const T* a, bool transposed, int64_t rows, int cols, int stride, T factor, T* tall) {
  for (int64_t i = 0; i < rows; ++i) {
    T* row = tall + i * stride;
    for (int j = 0; j < cols; ++j)
      row[j] = factor == T(0) ? T(0) : factor * (transposed ? a[j * rows + i] : a[i * cols + j]);
    for (int j = cols; j < stride; ++j) row[j] = T(0);
  }
}

template <class T>
void FullSvd<T>::tall_from_qr(int64_t b, const TallQr<T>& qr, SquareBatch<T>& square, int lane) {
  const T* v = square.v(lane);
  choose_signs(out_.canonical && !square.is_sorted, n_,
               [&](int j) { return v + order_[j] * square.stride; });
  write_rows(v, square.stride, order_.get(), factor_.get(), n_, n_, vh(b), n_);
  if (out_.u == nullptr) return;
  sign_left(square.values(lane));
  T* x = squares_.get();
  const int64_t array = static_cast<int64_t>(n_) * width_;
  std::fill_n(x, array, T(0));
  write_columns(square.u(lane), square.stride, order_.get(), factor_.get(), n_, n_, x, width_);
  tall_apply(qr, x, x + array, u(b), n_);
}

// AT = Q R and R = X S YT: A = Y S (Q X)T.
template <class T>
void FullSvd<T>::wide_from_qr(int64_t b, const TallQr<T>& qr, SquareBatch<T>& square, int lane,
                              T* tall) {
  T* x = squares_.get();
  const int64_t array = static_cast<int64_t>(m_) * width_;
  std::fill_n(x, array, T(0));
  std::fill_n(factor_.get(), m_, T(1));
  write_columns(square.u(lane), square.stride, order_.get(), factor_.get(), m_, m_, x, width_);
  tall_apply(qr, x, x + array, tall, m_);
  T* rows = vh(b);
  for (int j = 0; j < m_; ++j)
    for (int64_t i = 0; i < n_; ++i) rows[j * static_cast<int64_t>(n_) + i] = tall[i * m_ + j];
  choose_signs(out_.canonical, n_, [&](int j) { return rows + static_cast<int64_t>(j) * n_; });
  for (int j = 0; j < m_; ++j)
    for (int64_t i = 0; i < n_; ++i)
      rows[j * static_cast<int64_t>(n_) + i] =
          factor_[j] * rows[j * static_cast<int64_t>(n_) + i] + T(0);
  if (out_.u == nullptr) return;
  sign_left(square.values(lane));
  write_columns(square.v(lane), square.stride, order_.get(), factor_.get(), m_, m_, u(b), m_);
}

template <class T>
void FullSvd<T>::run_qr(const T* a, const std::vector<int64_t>& rest) {
  const int64_t one = static_cast<int64_t>(long_) * padded_, square_size = small_ * small_;
  // Bounded memory for very long matrices: fewer of them at a time.
  const int group =
      static_cast<int>(std::clamp<int64_t>((int64_t(1) << 23) / one, 1, most_lanes()));
  const bool left = vectors() && (wide() || out_.u != nullptr);
  const bool right = vectors() && (!wide() || out_.u != nullptr);
  Scratch<T> rows(group * one), tall(wide() && vectors() ? one : 0);
  Scratch<T> vectors_of(static_cast<int64_t>(group) * 4 * padded_);
  SquareBatch<T> square(small_, left, right, out_.canonical && !wide());
  for (size_t r0 = 0; r0 < rest.size(); r0 += group) {
    const int lanes = static_cast<int>(std::min<size_t>(group, rest.size() - r0));
    TallQr<T> qr[kLanes];
    T power[kLanes];
    bool finite[kLanes];
    for (int l = 0; l < lanes; ++l) {
      const T* source = a + rest[r0 + l] * size();
      const Magnitude<T> magnitude = matrix_magnitude(source, size());
      power[l] = magnitude.power;
      finite[l] = magnitude.finite;
      T* memory = vectors_of.get() + static_cast<int64_t>(l) * 4 * padded_;
      qr[l] = {rows.get() + l * one,
               long_,
               small_,
               padded_,
               memory,
               memory + padded_,
               memory + 2 * padded_,
               memory + 3 * padded_};
      load_tall(source, wide(), long_, small_, padded_, finite[l] ? T(1) / power[l] : T(0),
                qr[l].a);
      factorise(qr[l], matrices_.get() + l * square_size);
    }
    square.singular(matrices_.get(), square_size, lanes);
    for (int l = 0; l < lanes; ++l) {
      const int64_t b = rest[r0 + l];
      if (!finite[l]) {
        write_nan(b);
        continue;
      }
      write_values(square.values(l), square.scale[l] * power[l], b);
      if (!vectors()) continue;
      if (wide())
        wide_from_qr(b, qr[l], square, l, tall.get());
      else
        tall_from_qr(b, qr[l], square, l);
    }
  }
}

}  // namespace kdops::svd::KDOPS_ISA
