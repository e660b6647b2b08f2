// The triple loop of rkd_angle: sum over anchors i and pairs j < k of huber(cos_S - cos_T), and the
// derivative with respect to the student's squared distances, with no N^3 storage.
//
// With r = 1/d and a = d/2 the law of cosines reads
//     cos_ijk = r_ik (a_ij - 2 r_ij a_jk^2) + r_ij a_ik.
// A lane is an anchor i; a_jk is a scalar. With h = clamp(cos_S - cos_T, -1, 1) a tile of pairs
// (j, k) gathers
//     w[j][i] += h (r_ik - cos r_ij),  w[k][i] += h (r_ij - cos r_ik),  m[j][k] += h r_ij r_ik,
// and the weight of the unordered pair (j, i) is V = r_ij (w[j][i] + w[i][j]) - m. A zero distance
// has r = a = 0 and adds nothing.
//
// Memory (AngleField): for each block of anchors, for each row, the packs r and a of the student,
// r and a of the teacher, and w. In plain matrices rows that lie a power of two apart would fight
// for the same few cache lines.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/simd/transpose.h"
#include "relation/rows.h"

namespace kdops::relation::KDOPS_ISA {

inline constexpr int64_t kSweepBlocks = 8;  // blocks of anchors that one tile runs over
// Tiles; rows k that stay in cache during a sweep over j; blocks of anchors that are worth a group.
#if defined(__AVX512F__)
inline constexpr int kTileJ = 2, kTileK = 4;
inline constexpr int64_t kBlockK = 128, kGroupBlocks = 4;  // in L2
#else
inline constexpr int kTileJ = 1, kTileK = 2;
inline constexpr int64_t kBlockK = 16, kGroupBlocks = 8;  // in L1: 20 KiB with AVX2
#endif

// The interleaved fields: n rows, blocks of kLanes anchors.
template <class T>
struct AngleTable {
  static constexpr int kLanes = Pack<T>::kLanes;
  static constexpr int64_t kRow = kFields * kLanes;
  T* data;
  int64_t n;

  // Where rows k lie in L1 their blocks follow each other through its sets, which repeat every 4
  // KiB.
  static int64_t block_stride(int64_t n) {
    constexpr int64_t kRepeat = 4096 / sizeof(T), kWanted = kBlockK * kRow % kRepeat;
    if constexpr (kPackBytes == 64) return n * kRow;  // rows k lie in L2
    return n * kRow + (kWanted + kRepeat - n * kRow % kRepeat) % kRepeat;
  }
  int64_t block_stride() const { return block_stride(n); }
  T* at(int64_t block, int64_t row) const { return data + block * block_stride() + row * kRow; }
  T entry(int64_t row, int64_t anchor, AngleField field) const {
    return at(anchor / kLanes, row)[field * kLanes + anchor % kLanes];
  }
};

template <class T>
AngleShape angle_shape(int64_t n) {
  constexpr int64_t kLanes = Pack<T>::kLanes;
  const int64_t blocks = (n + kLanes - 1) / kLanes, by_memory = (int64_t(1) << 26) / (n * n);
  const int64_t most = std::min({blocks, by_memory, int64_t(16)});
  const int64_t groups = std::min(most, std::max<int64_t>(2, blocks / kGroupBlocks));
  return {blocks, std::max<int64_t>(1, groups), blocks * AngleTable<T>::block_stride(n)};
}

template <class T>
bool angle_fields(const GramRows<T>& g, int field, T* data, int64_t begin, int64_t end) {
  using P = Pack<T>;
  bool near = false;
  const int64_t n = g.x.count;
  const AngleTable<T> table{data, n};
  for (int64_t i = begin; i < end; ++i)
    for_packs<T>(n, [&](int64_t j, int lanes) {
      Root<T> root = pair_roots(g, i, j, lanes, near);
      for (int l = lanes; l < P::kLanes; ++l) {
        root.distance.set_lane(l, T(0));
        root.inverse.set_lane(l, T(0));
      }
      T* target = table.at(j / P::kLanes, i) + field * P::kLanes;
      root.inverse.store(target);
      (P(T(0.5)) * root.distance).store(target + P::kLanes);
      if (field == kStudentInverse) P(T(0)).store(target + kWeight * P::kLanes);
    });
  return near;
}

// What a tile needs of one row: four packs, and the weight that it adds to.
template <class T>
struct AngleRow {
  Pack<T> r, a, teacher_r, teacher_a, w;
  explicit AngleRow(const T* p)
      : r(Pack<T>::load(p + kStudentInverse * Pack<T>::kLanes)),
        a(Pack<T>::load(p + kStudentHalf * Pack<T>::kLanes)),
        teacher_r(Pack<T>::load(p + kTeacherInverse * Pack<T>::kLanes)),
        teacher_a(Pack<T>::load(p + kTeacherHalf * Pack<T>::kLanes)),
        w(Pack<T>::load(p + kWeight * Pack<T>::kLanes)) {}
  AngleRow() = default;
};

// Pairs (j + 0..J-1, k + 0..K-1) for the blocks begin..end of anchors.
template <class T, int J, int K, bool kGrad>
inline void angle_tile(AngleTable<T> table, int64_t j, int64_t k, int64_t begin, int64_t end,
                       T* __restrict m, Pack<T>& loss) {
  using P = Pack<T>;
  constexpr int64_t kRow = AngleTable<T>::kRow;
  P student[J][K], teacher[J][K], sum[J][K];  // D_jk / 2, and m
  for (int a = 0; a < J; ++a)
    for (int b = 0; b < K; ++b) {
      const T s = table.entry(j + a, k + b, kStudentHalf);
      const T t = table.entry(j + a, k + b, kTeacherHalf);
      student[a][b] = P(2 * s * s);
      teacher[a][b] = P(2 * t * t);
      sum[a][b] = P(T(0));
    }
  P total = loss;
  T *rows_j = table.at(begin, j), *rows_k = table.at(begin, k);
  for (int64_t i = begin; i < end; ++i) {
    AngleRow<T> at_j[J];
#pragma GCC unroll 4
    for (int a = 0; a < J; ++a) at_j[a] = AngleRow<T>(rows_j + a * kRow);
#pragma GCC unroll 4
    for (int b = 0; b < K; ++b) {
      AngleRow<T> q(rows_k + b * kRow);
#pragma GCC unroll 4
      for (int a = 0; a < J; ++a) {
        AngleRow<T>& p = at_j[a];
        const P cosine = fma(q.r, p.a - p.r * student[a][b], p.r * q.a);
        const P difference = cosine - q.teacher_r * (p.teacher_a - p.teacher_r * teacher[a][b]) -
                             p.teacher_r * q.teacher_a;
        const P h = max(min(difference, P(T(1))), P(T(-1)));
        total = fma(h, difference - P(T(0.5)) * h, total);
        if constexpr (kGrad) {
          p.w = fma(h, q.r - cosine * p.r, p.w);
          q.w = fma(h, p.r - cosine * q.r, q.w);
          sum[a][b] = fma(h * q.r, p.r, sum[a][b]);
        }
      }
      if constexpr (kGrad) q.w.store(rows_k + b * kRow + kWeight * P::kLanes);
    }
    if constexpr (kGrad)
      for (int a = 0; a < J; ++a) at_j[a].w.store(rows_j + a * kRow + kWeight * P::kLanes);
    rows_j += table.block_stride();
    rows_k += table.block_stride();
  }
  loss = total;
  if constexpr (kGrad)
    for (int a = 0; a < J; ++a)
      for (int b = 0; b < K; ++b) m[(j + a) * table.n + k + b] += reduce_add(sum[a][b]);
}

// Pairs (j + 0..J-1, k) with from <= k < to.
template <class T, int J, bool kGrad>
inline void angle_strip(AngleTable<T> table, int64_t j, int64_t from, int64_t to, int64_t begin,
                        int64_t end, T* m, Pack<T>& loss) {
  int64_t k = from;
  for (; k + kTileK <= to; k += kTileK)
    angle_tile<T, J, kTileK, kGrad>(table, j, k, begin, end, m, loss);
  for (; k < to; ++k) angle_tile<T, J, 1, kGrad>(table, j, k, begin, end, m, loss);
}

// Pairs j < k with k0 <= k < k1.
template <class T, bool kGrad>
double angle_block(AngleTable<T> table, int64_t k0, int64_t k1, int64_t begin, int64_t end, T* m) {
  double total = 0;
  for (int64_t j = 0; j < k1; j += kTileJ) {
    Pack<T> loss(T(0));  // flushed to double per strip: float would lose digits over N^3 terms
    const int64_t rows = std::min<int64_t>(kTileJ, k1 - j);
    for (int64_t a = j; a < j + rows; ++a)  // the triangle between the rows of this strip
      angle_strip<T, 1, kGrad>(table, a, std::max(k0, a + 1), std::min(k1, j + rows), begin, end, m,
                               loss);
    if (rows == kTileJ)
      angle_strip<T, kTileJ, kGrad>(table, j, std::max(k0, j + kTileJ), k1, begin, end, m, loss);
    total += static_cast<double>(reduce_add(loss));
  }
  return total;
}

// cos_ijj is 1, or 0 where d_ij = 0: pairs where only one of student and teacher is zero.
template <class T>
int64_t angle_mismatches(AngleTable<T> table, int64_t begin, int64_t end) {
  constexpr int kLanes = AngleTable<T>::kLanes;
  int64_t count = 0;
  for (int64_t block = begin; block < end; ++block)
    for (int64_t j = 0; j < table.n; ++j) {
      const T* row = table.at(block, j);
      for (int l = 0; l < kLanes; ++l)
        count +=
            (row[kStudentInverse * kLanes + l] == 0) != (row[kTeacherInverse * kLanes + l] == 0);
    }
  return count;
}

template <class T>
double angle_sweep(T* data, int64_t n, int64_t begin, int64_t end, T* m) {
  const AngleTable<T> table{data, n};
  double pairs = 0;
  for (int64_t i = begin; i < end; i += kSweepBlocks) {
    const int64_t last = std::min(end, i + kSweepBlocks);
    for (int64_t k0 = 0; k0 < n; k0 += kBlockK) {
      const int64_t k1 = std::min(n, k0 + kBlockK);
      pairs += m != nullptr ? angle_block<T, true>(table, k0, k1, i, last, m)
                            : angle_block<T, false>(table, k0, k1, i, last, m);
    }
  }
  return 2 * pairs + 0.5 * static_cast<double>(angle_mismatches(table, begin, end));
}

// Part of the weights of row `row` and the anchors of `block`: all of V but what the mirrored entry
// has of it. m has entries above the diagonal only.
template <class T>
inline Pack<T> half_weights(AngleTable<T> table, const T* m, int64_t groups, int64_t row,
                            int64_t block) {
  using P = Pack<T>;
  const int64_t n = table.n, anchor = block * P::kLanes;
  const int lanes = static_cast<int>(std::min<int64_t>(P::kLanes, n - anchor));
  P opposite(T(0));
  if (row < anchor + lanes)
    for (int64_t g = 0; g < groups; ++g)
      opposite += load_some(m + (g * n + row) * n + anchor, lanes);
  const T* fields = table.at(block, row);
  return P::load(fields + kStudentInverse * P::kLanes) * P::load(fields + kWeight * P::kLanes) -
         opposite;
}

template <class T>
void angle_laplacian(const T* data, int64_t n, const T* m, int64_t groups, T scale, T* out,
                     int64_t begin, int64_t end) {
  using P = Pack<T>;
  constexpr int64_t kLanes = P::kLanes;
  const AngleTable<T> table{const_cast<T*>(data), n};
  for (int64_t i = begin; i < end; i += kLanes) {
    const int rows = static_cast<int>(std::min(kLanes, end - i));
    P sums[kLanes];
    for (P& sum : sums) sum = P(T(0));
    for (int64_t j = 0; j < n; j += kLanes) {
      const int cols = static_cast<int>(std::min(kLanes, n - j));
      P mirrored[kLanes];
      for (int c = 0; c < kLanes; ++c)
        mirrored[c] = c < cols ? half_weights(table, m, groups, j + c, i / kLanes) : P(T(0));
      transpose(mirrored);
      for (int r = 0; r < rows; ++r) {
        const P weight = half_weights(table, m, groups, i + r, j / kLanes) + mirrored[r];
        sums[r] += weight;
        store_some(P(-scale) * weight, out + (i + r) * n + j, cols);
      }
    }
    for (int r = 0; r < rows; ++r) out[(i + r) * n + i + r] = scale * reduce_add(sums[r]);
  }
}

}  // namespace kdops::relation::KDOPS_ISA
