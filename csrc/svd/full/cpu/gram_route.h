// FullSvd through the Gram matrix on the small side: two passes over A and no copy of it.
#pragma once

#include "common/simd/long_sum.h"
#include "svd/full/cpu/full.h"

namespace kdops::svd::KDOPS_ISA {

// x xT for `rows` rows of `length` contiguous numbers: sixteen dot products at a time.
template <class T>
void wide_gram(const T* x, int rows, int64_t length, T* gram, int gram_stride) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes, kTile = 4;
  for (int i0 = 0; i0 < rows; i0 += kTile)
    for (int j0 = 0; j0 <= i0; j0 += kTile) {
      const T *left[kTile], *right[kTile];
#pragma GCC unroll 16
      for (int t = 0; t < kTile; ++t) {  // rows past the end repeat the last one
        left[t] = x + std::min(i0 + t, rows - 1) * length;
        right[t] = x + std::min(j0 + t, rows - 1) * length;
      }
      LongSum<P> whole[kTile][kTile];
      for (int64_t k = 0; k < length;) {
        const int64_t end = std::min(k + kLongBlock * kLanes, length);
        P acc[kTile][kTile];
#pragma GCC unroll 16
        for (auto& row : acc)
#pragma GCC unroll 16
          for (auto& value : row) value = P(T(0));
        const auto add = [&](const auto& load) {
          P b[kTile];
#pragma GCC unroll 16
          for (int t = 0; t < kTile; ++t) b[t] = load(right[t]);
#pragma GCC unroll 16
          for (int i = 0; i < kTile; ++i) {
            const P value = load(left[i]);
#pragma GCC unroll 16
            for (int j = 0; j < kTile; ++j) acc[i][j] = fma(value, b[j], acc[i][j]);
          }
        };
        for (; k + kLanes <= end; k += kLanes) add([&](const T* p) { return P::load(p + k); });
        if (k < end)
          add([&](const T* p) { return P::load_partial(p + k, static_cast<int>(end - k)); });
        k = end;
        for (int i = 0; i < kTile; ++i)
          for (int j = 0; j < kTile; ++j) whole[i][j].add(acc[i][j]);
      }
#pragma GCC unroll 16
      for (int i = 0; i < kTile; ++i) {
        T sums[kTile];
        P lanes[kTile];
        for (int j = 0; j < kTile; ++j) lanes[j] = whole[i][j].sum;
        reduce_add4(lanes, sums);
        for (int j = 0; j < kTile && i0 + i < rows && j0 + j < rows; ++j)
          gram[(i0 + i) * gram_stride + j0 + j] = gram[(j0 + j) * gram_stride + i0 + i] = sums[j];
      }
    }
}

// False where A must be scaled first, or holds NaN or Inf: the trace tells.
template <class T>
bool FullSvd<T>::gram_matrix(const T* a, T* gram) {
  T* padded = squares_.get();
  if (wide())
    wide_gram(a, m_, n_, padded, width_);
  else
    tall_gram(a, m_, n_, n_, padded, width_, padded + static_cast<int64_t>(small_) * width_);
  T trace(0);
  for (int i = 0; i < small_; ++i) trace += padded[i * width_ + i];
  const bool safe = gram_in_range(trace);
  for (int i = 0; i < small_; ++i)
    for (int j = 0; j < small_; ++j) gram[i * small_ + j] = safe ? padded[i * width_ + j] : T(0);
  return safe;
}

template <class T>
void FullSvd<T>::tall_from_gram(const T* a, int64_t b, const T* v, int stride) {
  choose_signs(out_.canonical, n_, [&](int j) { return v + order_[j] * stride; });
  write_rows(v, stride, order_.get(), factor_.get(), n_, n_, vh(b), n_);
  if (out_.u == nullptr) return;
  for (int j = 0; j < n_; ++j) factor_[j] = s(b)[j] > T(0) ? factor_[j] / s(b)[j] : T(0);
  T* scaled = squares_.get();  // V diag(1 / s)
  std::fill_n(scaled, static_cast<int64_t>(n_) * width_, T(0));
  write_columns(v, stride, order_.get(), factor_.get(), n_, n_, scaled, width_);
  multiply<T>({m_, n_, n_, {a, n_}, {scaled, width_}, {u(b), n_}});
}

template <class T>
void FullSvd<T>::wide_from_gram(const T* a, int64_t b, const T* v, int stride) {
  for (int j = 0; j < m_; ++j) factor_[j] = s(b)[j] > T(0) ? T(1) / s(b)[j] : T(0);
  T* scaled = squares_.get();  // diag(1 / s) UT
  write_rows(v, stride, order_.get(), factor_.get(), m_, m_, scaled, width_);
  multiply<T>({m_, n_, m_, {scaled, width_}, {a, n_}, {vh(b), n_}});
  choose_signs(out_.canonical, n_, [&](int j) { return vh(b) + static_cast<int64_t>(j) * n_; });
  for (int j = 0; j < m_; ++j)
    if (factor_[j] < T(0)) {
      T* row = vh(b) + static_cast<int64_t>(j) * n_;
      for (int i = 0; i < n_; ++i) row[i] = -row[i];
    }
  if (out_.u != nullptr) write_columns(v, stride, order_.get(), factor_.get(), m_, m_, u(b), m_);
}

// False where the eigenvalues say that the Gram matrix has lost too much.
template <class T>
bool FullSvd<T>::finish_gram(const T* a, int64_t b, SquareBatch<T>& eigen, int lane) {
  const T* values = eigen.values(lane);
  const auto [least, most] = std::minmax_element(values, values + small_);
  T inverses(0);
  for (int i = 0; i < small_; ++i) inverses += T(1) / values[i];
  const GramValues<T> extent{*most, *least, inverses};
  if (!out_.fast && !gram_resolves(extent, small_, vectors())) return false;
  for (int j = 0; j < small_; ++j) keys_[j] = std::sqrt(max(values[j], T(0)) * eigen.scale[lane]);
  sort_descending(keys_.get(), small_, order_.get());
  for (int j = 0; j < small_; ++j) s(b)[j] = keys_[order_[j]];
  if (!vectors()) return true;
  if (wide())
    wide_from_gram(a, b, eigen.v(lane), eigen.stride);
  else
    tall_from_gram(a, b, eigen.v(lane), eigen.stride);
  return true;
}

// Matrices per group. Where the small eigenvalue problem is cheap it is better to leave lanes idle
// than to let A fall out of L2 between its two passes.
template <class T>
int FullSvd<T>::gram_group() const {
  const int64_t bytes = size() * static_cast<int64_t>(sizeof(T)), l2 = int64_t(640) << 10;
  if (small_ > kLanesOrder || bytes > l2) return most_lanes();
  return static_cast<int>(std::clamp<int64_t>(l2 / bytes, 1, kLanes));
}

template <class T>
void FullSvd<T>::run_gram(const T* a, int64_t count, std::vector<int64_t>& rest) {
  SquareBatch<T> eigen(small_, false, vectors(), false);
  const int group = gram_group();
  for (int64_t b0 = 0; b0 < count; b0 += group) {
    const int lanes = static_cast<int>(std::min<int64_t>(group, count - b0));
    const int64_t square = static_cast<int64_t>(small_) * small_;
    bool safe[kLanes];
    for (int l = 0; l < lanes; ++l)
      safe[l] = gram_matrix(a + (b0 + l) * size(), matrices_.get() + l * square);
    eigen.symmetric(matrices_.get(), square, lanes);
    for (int l = 0; l < lanes; ++l)
      if (!safe[l] || !finish_gram(a + (b0 + l) * size(), b0 + l, eigen, l)) rest.push_back(b0 + l);
  }
}

}  // namespace kdops::svd::KDOPS_ISA
