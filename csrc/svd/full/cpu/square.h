// Singular value and eigenvalue decompositions of up to kLanes square matrices at a time.
//
// n <= kLanesOrder: one matrix per lane throughout. Above, 16 interleaved matrices would fall out
// of L1: the rotations run on one row-major matrix at a time, and only the scalar recurrences of
// the QR iteration are interleaved over the lanes. The reductions follow the lanes up to
// kLanesReduceOrder (short rows and the latency of reflectors cost more than L2 does). This file:
// the class; its methods are in square_lanes.h and square_hybrid.h, which users include.
#pragma once

#include <algorithm>

#include "common/simd/pack_twin.h"
#include "common/simd/scratch.h"
#include "svd/full/cpu/lanes_reduce.h"
#include "svd/full/cpu/matrix_reduce.h"
#include "svd/full/cpu/scale.h"
#include "svd/full/cpu/tridiagonal_qr.h"

namespace kdops::svd::KDOPS_ISA {

inline constexpr int kLanesOrder = 16, kLanesReduceOrder = 32;
// Above this order a matrix has the lanes to itself: memory for more would cost more than the idle
// recurrences do.
inline constexpr int kLargestInLanes = 128;

// Numbers in a line of the cache. Arrays that are worked on together lie one more line apart than
// their size, which is often a multiple of what one set of the cache repeats after.
template <class T>
inline constexpr int kCacheLine = 64 / static_cast<int>(sizeof(T));

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

// Collects the rotations of a few sweeps of all lanes, then applies them matrix by matrix, as
// chains of rotate_chain() (row_passes.h). V: a register, or two.
template <class V>
class RotateMatrices {
  using T = Scalar<V>;
  using P = Pack<T>;
  static constexpr int kLanes = NumberTraits<V>::kLanes, kRegisters = kLanes / P::kLanes;
  static constexpr int kSweeps = 8, kSide = 3, kKinds = 2 * kSide;  // v and u

 public:
  static int64_t memory(int stride) {
    const int64_t lane = (2 * kKinds * stride + 2) * int64_t(kSweeps) + kCacheLine<T>;
    return kLanes * lane;
  }

  // u, v: the first matrix, or null; `matrix` numbers from one to the next.
  RotateMatrices(T* memory, int64_t matrix, int stride, int lanes, T* u, T* v)
      : buffer_(reinterpret_cast<P*>(memory)),
        matrix_(matrix),
        stride_(stride),
        lanes_(lanes),
        vectors_{v, u} {}

  void begin(V low, V high, int first, int end) {
    bounds()[2 * count_] = low;
    bounds()[2 * count_ + 1] = high;
    first_[count_] = first;
    end_[count_] = end;
    owed_[0] = owed_[1] = V(T(1));
  }
  void right(int i, V c, V s) { add(0, i, c, s); }
  void left(int i, V c, V s) { add(1, i, c, s); }
  void end() {
    for (int side = 0; side < 2; ++side) put(kSide * side, end_[count_], owed_[side]);
    if (++count_ == kSweeps) flush();
  }
  void flush() {
    // One lane's coefficients side by side: read in place, each would cost a cache line.
    for (int sweep = 0; sweep < count_; ++sweep)
      for (int kind = 0; kind < kKinds; ++kind) {
        if (vectors_[kind / kSide] == nullptr) continue;
        constexpr int kWhole = P::kLanes;  // whole registers
        const int first = first_[sweep] / kWhole * kWhole;
        const int length = (end_[sweep] / kWhole + 1) * kWhole - first;
        for (int l = 0; l < lanes_; l += kWhole)
          scatter_lanes(row(l / kWhole, sweep, kind) + first, length, std::min(kWhole, lanes_ - l),
                        chain(l, sweep, kind) + first, lane_distance());
      }
    for (int l = 0; l < lanes_; ++l)
      for (int side = 0; side < 2; ++side)
        if (vectors_[side] != nullptr) apply(l, side);
    count_ = 0;
  }

 private:
  void add(int side, int i, V c, V s) {
    if (vectors_[side] == nullptr) return;
    const int kind = kSide * side;
    put(kind, i, c * owed_[side]);
    put(kind + 1, i, s);
    put(kind + 2, i, s / c * owed_[side]);
    owed_[side] = c;
  }
  void put(int kind, int i, V value) {
    P registers[kRegisters];
    std::memcpy(registers, &value, sizeof(V));
    for (int r = 0; r < kRegisters; ++r) row(r, count_, kind)[i] = registers[r];
  }
  int64_t lane_size() const { return static_cast<int64_t>(kSweeps) * kKinds * stride_; }
  // The lanes' chains must not all lie in the same sets of the cache.
  int64_t lane_distance() const { return lane_size() + kCacheLine<T>; }
  // The factors of register r of the lanes.
  P* row(int r, int sweep, int kind) const {
    return buffer_ + r * lane_size() + (kKinds * sweep + kind) * stride_;
  }
  V* bounds() const { return reinterpret_cast<V*>(buffer_ + kRegisters * lane_size()); }
  T* chain(int lane, int sweep, int kind) const {
    return reinterpret_cast<T*>(bounds() + 2 * kSweeps) + lane * lane_distance() +
           (kKinds * sweep + kind) * stride_;
  }
  void apply(int lane, int side) const {
    T* q = vectors_[side] + lane * matrix_;
    for (int sweep = 0; sweep < count_; ++sweep) {
      const T low = bounds()[2 * sweep].lane(lane), high = bounds()[2 * sweep + 1].lane(lane);
      if (low < high)
        rotate_chain(q, stride_, static_cast<int>(low), static_cast<int>(high),
                     chain(lane, sweep, kSide * side), stride_);
    }
  }

  P* buffer_;
  V owed_[2];  // the factor that the moving row of a chain still lacks
  int64_t matrix_;
  int stride_, lanes_, count_ = 0;
  int first_[kSweeps], end_[kSweeps];
  T* vectors_[2];
};

// Where the results of a whole group go: n x n, n and n x n numbers per matrix.
template <class T>
struct Target {
  T *u, *s, *vh;
};

// Results for lane l: rows of u(l) and v(l) are the left and right vectors, `stride` apart, in the
// order of values(l): unsorted and signed (the vectors are as computed) unless is_sorted: then the
// values descend and are not negative, v has canonical signs if asked for, and u follows. scale[l]
// multiplies the values. finite[l]: no NaN or Inf (otherwise the results are those of zero).
template <class T>
class SquareBatch {
  using V = Pack<T>;
  static constexpr int kMost = NumberTraits<Wide<T>>::kLanes;

 public:
  static constexpr int kLanes = V::kLanes;
  const int n, stride;
  const bool is_sorted;  // small orders: signs and order are found in all lanes at once
  const int group;  // how many matrices singular() takes at once; symmetric() min(group, kLanes)
  T scale[kMost];
  bool finite[kMost];

  // has_target: singular() will always get one, so that sorted results need no place here.
  SquareBatch(int order, bool want_u, bool want_v, bool canonical, bool has_target = false)
      : n(order),
        stride(order <= kLanesOrder ? order : (order + kLanes - 1) / kLanes * kLanes),
        is_sorted(order <= kLanesOrder),
        group(order > kLargestInLanes                             ? 1
              : order > kLanesOrder && order <= kLanesReduceOrder ? kMost
                                                                  : kLanes),
        want_u_(want_u),
        want_v_(want_v),
        canonical_(canonical),
        keeps_(!(is_sorted && has_target)),
        u_(want_u && keeps_ ? matrix() * group : 0),
        v_(want_v && keeps_ ? matrix() * group : 0),
        values_(keeps_ ? static_cast<int64_t>(order) * group : 0),
        work_(work_size()) {
    // The padding of rows is rotated with them: it must not be denormal garbage.
    if (want_u && keeps_) std::fill_n(u_.get(), matrix() * group, T(0));
    if (want_v && keeps_) std::fill_n(v_.get(), matrix() * group, T(0));
  }

  T* u(int l) { return u_.get() + l * matrix(); }
  T* v(int l) { return v_.get() + l * matrix(); }
  const T* values(int l) const { return values_.get() + static_cast<int64_t>(l) * n; }

  // a: row-major n x n matrices, `apart` numbers between them. Singular values and vectors; sorted
  // ones go straight to the target if there is one, and not to u(), v() and values().
  void singular(const T* a, int64_t apart, int lanes, const Target<T>* target = nullptr) {
    if (is_sorted)
      sorted_singular(a, apart, lanes, target);
    else if (n <= kLanesReduceOrder)
      lanes_singular(a, apart, lanes);
    else
      hybrid_singular(a, apart, lanes);
  }
  // Symmetric a (its lower triangle is read): eigenvalues, and eigenvectors as rows of v.
  void symmetric(const T* a, int64_t apart, int lanes) {
    if (n <= kLanesReduceOrder)
      lanes_symmetric(a, apart, lanes);
    else
      hybrid_symmetric(a, apart, lanes);
  }

 private:
  int64_t matrix() const { return static_cast<int64_t>(n) * stride + kCacheLine<T>; }
  int64_t work_size() const {
    if (n <= kLanesReduceOrder)
      return static_cast<int64_t>(kLanes) * (3 * n * n + 5 * n) +
             (n > kLanesOrder ? 2 * kMost * n + RotateMatrices<Wide<T>>::memory(stride) : 0);
    const int64_t square = static_cast<int64_t>(stride) * stride;
    return 4 * square + (ReduceWork<T>::kVectors + 4) * stride + 2 * kLanes * n +
           RotateMatrices<V>::memory(stride);
  }

  void sorted_singular(const T* a, int64_t apart, int lanes, const Target<T>* target);
  void lanes_singular(const T* a, int64_t apart, int lanes);
  void lanes_symmetric(const T* a, int64_t apart, int lanes);
  void hybrid_singular(const T* a, int64_t apart, int lanes);
  void hybrid_symmetric(const T* a, int64_t apart, int lanes);
  template <class W>
  void iterate_singular(W* d, W* e, T* memory, int lanes);
  void iterate_symmetric(V* d, V* e, T* memory, int lanes);
  void load_lanes(const T* a, int64_t apart, int lanes, bool lower, V* w, int first = 0);
  void reduce_lanes(V* w, V* ut, V* vt, V* d, V* e, V* tau);
  void load_matrix(const T* a, bool lower, int lane, T* w);
  void choose_lane_signs(V* d, V* ut, V* vt) const;
  void write_lanes(const V* d, const V* ut, const V* vt, V* work, int lanes,
                   const Target<T>& target) const;
  void separate(const V* vectors, int lanes, T* out) const;
  void store_values(const V* d, int lanes, int first = 0) {
    scatter_lanes(d, n, lanes, values_.get() + static_cast<int64_t>(first) * n, n);
  }

  const bool want_u_, want_v_, canonical_, keeps_;
  Scratch<T> u_, v_, values_, work_;
};

}  // namespace kdops::svd::KDOPS_ISA
