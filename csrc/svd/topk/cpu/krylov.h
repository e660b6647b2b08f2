// The leading eigenpairs of one symmetric positive semi-definite matrix by block Krylov.
//
// A basis of span(Q, G Q, G² Q, ...), every block of which is made orthogonal to all before it
// twice, from a fixed start; the pairs of the projected matrix by LeadingPairs. What the basis has
// not yet caught of a pair decides whether it grows or the answer is good: the pair's part in the
// last block times the size of the block that would follow. Unlike the residual it keeps falling
// below rounding; where it falls too slowly for the basis that may be, the search ends early. A
// block holds at least as many vectors as are wanted, so that no copy of a repeated value can be
// missed.
#pragma once

#include <algorithm>
#include <cmath>

#include "common/blas/gemm.h"
#include "svd/shared/krylov_rules.h"
#include "svd/topk/cpu/leading_pairs.h"
#include "svd/topk/cpu/refine.h"

namespace kdops::svd::KDOPS_ISA {

// From here on the tridiagonal form costs less. It grows faster with p than the basis does.
inline int most_basis(int p) { return std::clamp(p * 3 / 8 / kJudgedStep * kJudgedStep, 128, 256); }

// Numbers of [-1, 1) that depend on `index` alone.
template <class T>
inline T scrambled(uint32_t index) {
  uint32_t h = index * 0x9e3779b9u + 0x7f4a7c15u;
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) * 0xc2b2ae35u;
  h ^= h >> 16;
  return T(static_cast<int32_t>(h >> 8) - (1 << 23)) * T(1.0 / (1 << 23));
}

template <class T>
class Krylov {
 public:
  // G: p rows, `width` apart (a multiple of the register), zeros in the padding. whole: s_1 before
  // triples were taken away from what G is made of, or zero.
  Krylov(int order, int row_width, int top, int most, T whole)
      : p_(order),
        width_(row_width),
        k_(top),
        most_(most),
        block_(krylov_block(top)),
        limit_(most_basis(order)),
        whole_(whole),
        basis_(int64_t(limit_ + block_) * width_),
        images_(int64_t(limit_) * width_),
        projected_(limit_ * limit_),
        square_(limit_ * limit_),
        weights_(int64_t(most > block_ ? most : block_) * limit_),
        image_(int64_t(most) * width_),
        pairs_(limit_, limit_, most) {
    std::fill_n(basis_.get(), int64_t(limit_ + block_) * width_, T(0));
    std::fill_n(images_.get(), int64_t(limit_) * width_, T(0));
    std::fill_n(image_.get(), int64_t(most) * width_, T(0));
  }

  // values (most), vectors (most x p): how many leading pairs are good. At least k, or fewer where
  // a Gram matrix resolves no more; 0 where the basis has not found them.
  int run(const T* G, T* values, T* vectors) {
    for (int j = 0; j < block_; ++j) start_row(row(j), j);
    orthonormalise(0, false);
    for (int size = block_;; size += block_) {
      T* images = images_.get() + int64_t(size - block_) * width_;
      gemm<T>(block_, p_, p_, T(1), {row(size - block_), width_, 1}, {G, width_, 1},
              View<T>{images, width_, 1});
      std::copy_n(images, int64_t(block_) * width_, row(size));
      orthonormalise(size, true);
      if (size < kFirstJudged || size % kJudgedStep != 0) continue;
      const T before = missed_;
      if (const int good = ritz_pairs(size, values, vectors)) return good;
      if (size == limit_ || (size > kFirstJudged && is_hopeless(size, before))) return 0;
    }
  }

 private:
  T* row(int i) { return basis_.get() + int64_t(i) * width_; }
  void start_row(T* x, int which) {
    for (int i = 0; i < p_; ++i) x[i] = scrambled<T>(which * 65536u + i);
  }
  void project(int size, bool keep);
  T gram_schmidt(int first);
  void orthonormalise(int first, bool keep);
  int ritz_pairs(int size, T* values, T* vectors);
  int good_pairs(const T* values, const T* missed, const T* residuals);
  bool is_hopeless(int size, T before) const;

  const int p_, width_, k_, most_, block_, limit_;
  const T whole_;
  int replaced_ = 0;
  T missed_ = T(0);  // of the wanted pair of which most is missed, relative to its value
  T next_ = T(0);    // the norm of the block that follows, before it is made orthonormal
  Scratch<T> basis_, images_, projected_, square_, weights_, image_;
  LeadingPairs<T> pairs_;
};

// Rows size .. size + block - 1 lose their parts along the rows before. keep: these are images of
// the last block, whose parts are entries of the projected matrix.
template <class T>
void Krylov<T>::project(int size, bool keep) {
  T* weights = weights_.get();
  inner_products<T>({basis_.get(), width_, size}, {row(size), width_, block_}, width_, weights, 1,
                    limit_);
  for (int j = 0; keep && j < block_; ++j)
    for (int i = 0; i < size; ++i)
      projected_[i * limit_ + size - block_ + j] = weights[j * limit_ + i];
  gemm<T>(block_, p_, size, T(-1), {weights, limit_, 1}, {basis_.get(), width_, 1},
          View<T>{row(size), width_, 1}, true);
}

// Within a block. The smallest norm that a row had before it was made a unit vector; a row of which
// nothing is left gives way to a fresh one.
template <class T>
T Krylov<T>::gram_schmidt(int first) {
  constexpr T eps = std::numeric_limits<T>::epsilon();
  T least = std::numeric_limits<T>::max();
  for (int j = 0; j < block_; ++j) {
    T* x = row(first + j);
    for (int i = 0; i < j; ++i) {
      const Pack<T> minus(-dot_rows(row(first + i), x, width_));
      const T* other = row(first + i);
      for (int c = 0; c < width_; c += Pack<T>::kLanes)
        fma(minus, Pack<T>::load(other + c), Pack<T>::load(x + c)).store(x + c);
    }
    const T norm = std::sqrt(dot_rows(x, x, width_));
    least = min(norm, least);
    if (norm > eps * eps)
      scale_row(x, p_, 1 / norm);
    else
      start_row(x, limit_ + replaced_++), scale_row(x, p_, 1 / std::sqrt(T(p_)));
  }
  return least;
}

template <class T>
void Krylov<T>::orthonormalise(int first, bool keep) {
  for (int round = 0; round < 5; ++round) {
    if (first > 0) project(first, keep && round == 0);
    if (round == 0) next_ = std::sqrt(dot_rows(row(first), row(first), int64_t(block_) * width_));
    // What lost little in a later round was orthogonal to rounding before it.
    if (gram_schmidt(first) > T(0.7) && round > 0) return;
  }
}

// Pairs of the projection on the first `size` rows, and as run().
template <class T>
int Krylov<T>::ritz_pairs(int size, T* values, T* vectors) {
  T* M = square_.get();
  const int stride = size;  // a multiple of every register
  std::fill_n(M, int64_t(size) * stride, T(0));
  for (int i = 0; i < size; ++i)
    for (int j = i; j < size; ++j)
      M[i * stride + j] = M[j * stride + i] = projected_[i * limit_ + j];
  pairs_.reduce(M, size, stride);
  pairs_.values(most_, values);
  if (!(values[0] > T(0))) return 0;
  pairs_.vectors(most_, values, weights_.get(), limit_);
  const View<const T> turn{weights_.get(), limit_, 1};
  gemm<T>(most_, p_, size, T(1), turn, {basis_.get(), width_, 1}, View<T>{vectors, p_, 1});
  gemm<T>(most_, p_, size, T(1), turn, {images_.get(), width_, 1},
          View<T>{image_.get(), width_, 1});
  T missed[2 * kLargestKAbove + 4], residuals[2 * kLargestKAbove + 4];
  for (int i = 0; i < most_; ++i) {
    const T* last = weights_.get() + i * limit_ + size - block_;
    missed[i] = next_ * std::sqrt(dot_rows(last, last, block_));
    T* x = image_.get() + int64_t(i) * width_;
    for (int c = 0; c < p_; ++c) x[c] -= values[i] * vectors[int64_t(i) * p_ + c];
    residuals[i] = std::sqrt(dot_rows(x, x, p_));
  }
  return good_pairs(values, missed, residuals);
}

// The leading pairs that are exact to rounding, if the others stay clear of the k-th value. Where
// that is lost in rounding, those that are not.
template <class T>
int Krylov<T>::good_pairs(const T* values, const T* missed, const T* residuals) {
  const RitzPairs<T> pairs{values, missed, residuals, most_};
  const int within = resolved(values, k_);
  missed_ = pairs.most_missed(within);
  const T clear = clearance(p_, values[0], whole_ * std::sqrt(values[k_ - 1]));
  return pairs.accepted(pairs.exact(), within, k_, clear);
}

// Whether the largest basis would still miss too much if what it misses went on falling as it did
// since `before` (it falls ever faster: hence the allowance), or misses nothing, and the pairs are
// refused for lying too close to others.
template <class T>
bool Krylov<T>::is_hopeless(int size, T before) const {
  if (missed_ <= kMissed<T>) return size >= 128;
  const T steps = T((limit_ - size) / kJudgedStep);
  return missed_ * std::pow(missed_ / before, steps) > kAllowance<T> * kMissed<T>;
}

}  // namespace kdops::svd::KDOPS_ISA
