// Singular value and eigenvalue decompositions of up to kLanes square matrices at a time.
//
// n <= kLanesOrder: one matrix per lane throughout. Above, 16 interleaved matrices would fall out
// of L1: the reductions and the rotations run on one row-major matrix at a time, and only the
// scalar recurrences of the QR iteration are interleaved over the lanes.
#pragma once

#include <algorithm>

#include "common/scratch.h"
#include "svd/lanes_reduce.h"
#include "svd/matrix_reduce.h"
#include "svd/scale.h"
#include "svd/tridiagonal_qr.h"

namespace kdops::KDOPS_ISA {

inline constexpr int kLanesOrder = 16;

struct NoRotations {
  template <class V>
  void begin(V, V, int, int) {}
  template <class V>
  void right(int, V, V) {}
  template <class V>
  void left(int, V, V) {}
  void end() {}
};

// Applies each rotation to the interleaved vectors as it is found. u, v null: not wanted.
template <class V>
struct RotateLanes {
  V *u, *v;
  int n;
  void begin(V, V, int, int) {}
  void right(int i, V c, V s) {
    if (v != nullptr) rotate_rows(v + i * n, v + (i + 1) * n, n, c, s);
  }
  void left(int i, V c, V s) {
    if (u != nullptr) rotate_rows(u + i * n, u + (i + 1) * n, n, c, s);
  }
  void end() {}
};

// Collects the rotations of a few sweeps of all lanes, then applies them matrix by matrix.
template <class T>
class RotateMatrices {
  using V = Pack<T>;
  static constexpr int kLanes = V::kLanes, kSweeps = 8;

 public:
  static int64_t memory(int n) { return (4 * kSweeps * n + 2 * kSweeps) * kLanes; }

  RotateMatrices(T* memory, int n, int stride, int lanes, T* u, T* v)
      : buffer_(reinterpret_cast<V*>(memory)),
        n_(n),
        stride_(stride),
        lanes_(lanes),
        u_(u),
        v_(v) {}

  void begin(V low, V high, int, int) {
    bounds()[2 * count_] = low;
    bounds()[2 * count_ + 1] = high;
  }
  void right(int i, V c, V s) {
    row(0)[i] = c;
    row(1)[i] = s;
  }
  void left(int i, V c, V s) {
    row(2)[i] = c;
    row(3)[i] = s;
  }
  void end() {
    if (++count_ == kSweeps) flush();
  }
  void flush() {
    const int64_t matrix = static_cast<int64_t>(n_) * stride_;
    for (int l = 0; l < lanes_; ++l) {
      if (v_ != nullptr) apply(l, 0, v_ + l * matrix);
      if (u_ != nullptr) apply(l, 2, u_ + l * matrix);
    }
    count_ = 0;
  }

 private:
  V* bounds() const { return buffer_ + 4 * kSweeps * n_; }
  V* row(int kind) const { return buffer_ + (4 * count_ + kind) * n_; }
  void apply(int lane, int kind, T* q) const {
    for (int sweep = 0; sweep < count_; ++sweep) {
      const T low = bounds()[2 * sweep].lane(lane), high = bounds()[2 * sweep + 1].lane(lane);
      const V* c = buffer_ + (4 * sweep + kind) * n_;
      if (low < high)
        rotate_chain(q, stride_, static_cast<int>(low), static_cast<int>(high),
                     reinterpret_cast<const T*>(c) + lane,
                     reinterpret_cast<const T*>(c + n_) + lane, kLanes);
    }
  }

  V* buffer_;
  int n_, stride_, lanes_, count_ = 0;
  T *u_, *v_;
};

// Results for lane l: rows of u(l) and v(l) are the left and right vectors, `stride` apart, in the
// order of values(l): signed, unsorted, to be multiplied by scale[l]. finite[l]: no NaN or Inf.
template <class T>
class SquareBatch {
  using V = Pack<T>;

 public:
  static constexpr int kLanes = V::kLanes;
  const int n, stride;
  T scale[kLanes];
  bool finite[kLanes];

  SquareBatch(int order, bool want_u, bool want_v)
      : n(order),
        stride(order <= kLanesOrder ? order : (order + kLanes - 1) / kLanes * kLanes),
        want_u_(want_u),
        want_v_(want_v),
        u_(want_u ? matrix() * kLanes : 0),
        v_(want_v ? matrix() * kLanes : 0),
        values_(static_cast<int64_t>(order) * kLanes),
        work_(work_size()) {}

  T* u(int l) { return u_.get() + l * matrix(); }
  T* v(int l) { return v_.get() + l * matrix(); }
  const T* values(int l) const { return values_.get() + static_cast<int64_t>(l) * n; }

  // a: row-major n x n matrices, `apart` numbers between them. Singular values and vectors.
  void singular(const T* a, int64_t apart, int lanes) {
    if (n <= kLanesOrder)
      lanes_singular(a, apart, lanes);
    else
      hybrid_singular(a, apart, lanes);
  }
  // Symmetric a (its lower triangle is read): eigenvalues, and eigenvectors as rows of v.
  void symmetric(const T* a, int64_t apart, int lanes) {
    if (n <= kLanesOrder)
      lanes_symmetric(a, apart, lanes);
    else
      hybrid_symmetric(a, apart, lanes);
  }

 private:
  int64_t matrix() const { return static_cast<int64_t>(n) * stride; }
  int64_t work_size() const {
    if (n <= kLanesOrder) return static_cast<int64_t>(kLanes) * (3 * n * n + 5 * n);
    const int64_t square = static_cast<int64_t>(stride) * stride;
    return 4 * square + (ReduceWork<T>::kVectors + 4) * stride + 2 * kLanes * n +
           RotateMatrices<T>::memory(n);
  }

  void lanes_singular(const T* a, int64_t apart, int lanes);
  void lanes_symmetric(const T* a, int64_t apart, int lanes);
  void hybrid_singular(const T* a, int64_t apart, int lanes);
  void hybrid_symmetric(const T* a, int64_t apart, int lanes);
  void load_lanes(const T* a, int64_t apart, int lanes, bool lower, V* w);
  void load_matrix(const T* a, bool lower, int lane, T* w);
  void store_values(const V* d, int lanes) { scatter_lanes(d, n, lanes, values_.get(), n); }

  bool want_u_, want_v_;
  Scratch<T> u_, v_, values_, work_;
};

}  // namespace kdops::KDOPS_ISA

#include "svd/square_hybrid.h"
#include "svd/square_lanes.h"
