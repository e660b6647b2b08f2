// cka_loss on raw pointers, compiled once per instruction set. What the way by columns multiplies
// is features.h.
#include "token_gram/cka_simd.h"

#include "token_gram/cka_columns.h"
#include "token_gram/features.h"

namespace kdops::token_gram::KDOPS_ISA {

template <class T>
void cka_largest(const Cka<T>& p, int64_t begin, int64_t end) {
  const int64_t groups = token_groups(p.n);
  for (int64_t i = begin; i < end; ++i) {
    const auto& x = (i < groups ? p.student : p.teacher).given;
    const int64_t first = i % groups * kTokenGroup;
    T largest(0);
    for (int64_t r = first; r < std::min(first + kTokenGroup, p.n); ++r) {
      const T* row = x.data + p.present[r] * x.row;
      if (x.col == 1) {
        largest = std::max(largest, largest_size(row, x.width));
      } else {
        for (int64_t k = 0; k < x.width; ++k) largest = std::max(largest, std::abs(row[k * x.col]));
      }
    }
    p.sums[i] = static_cast<double>(largest);
  }
}

template <class T>
void cka_columns(const Cka<T>& p, int64_t begin, int64_t end) {
  const int64_t blocks = column_blocks(p.student.given.width);
  for (int64_t i = begin; i < end; ++i)
    prepare_columns(p, i < blocks ? p.student : p.teacher,
                    (i < blocks ? i : i - blocks) * kColumns);
}

template <class T>
void cka_kernels(const Cka<T>& p, int64_t begin, int64_t end) {
  const int64_t blocks = feature_blocks(p.n), count = blocks * (blocks + 1) / 2;
  for (int64_t i = begin; i < end; ++i) {
    const CkaSide<T>& side = i < count ? p.student : p.teacher;
    const int64_t width = side.given.width;
    const Factor<T> rows{{side.rows, width, 1}, p.n, width};
    p.sums[i] = mirrored_block(rows, i % count, side.kernel, p.n);
  }
}

// Entries `row` of both kernels as parts of size one: body(j, lanes, a, a - b).
template <class T, class Body>
void for_differences(const Cka<T>& p, int64_t row, const Body& body) {
  const Pack<T> own(static_cast<T>(p.student.own)), other(static_cast<T>(p.teacher.own));
  const T *student = p.student.kernel + row * p.n, *teacher = p.teacher.kernel + row * p.n;
  for_packs<T>(p.n, [&](int64_t j, int lanes) {
    const Pack<T> a = load_some(student + j, lanes) * own;
    body(j, lanes, a, a - load_some(teacher + j, lanes) * other);
  });
}

template <class T>
void cka_differences(const Cka<T>& p, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    p.sums[i] = 0;
    for (int64_t r = i * kTokenGroup; r < std::min((i + 1) * kTokenGroup, p.n); ++r) {
      Pack<T> sum(T(0));
      for_differences(p, r, [&](int64_t, int, Pack<T>, Pack<T> d) { sum = fma(d, d, sum); });
      p.sums[i] += static_cast<double>(reduce_add(sum));
    }
  }
}

// With unit A = K_S/|K_S| and B, dL/dA = -B across A, which is A - B - (1 - <A, B>) A.
template <class T>
void cka_pull(const Cka<T>& p, int64_t begin, int64_t end) {
  const int64_t width = p.student.given.width, chunks = pull_chunks(width);
  const Pack<T> loss(static_cast<T>(p.loss));
  Scratch<T> weights(kFeatureBlock * p.n);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = i / chunks * kFeatureBlock, rows = std::min(kFeatureBlock, p.n - first);
    const int64_t column = i % chunks * kPullColumns;
    for (int64_t r = 0; r < rows; ++r)
      for_differences(p, first + r, [&](int64_t j, int lanes, Pack<T> a, Pack<T> d) {
        store_some(d - loss * a, weights.get() + r * p.n + j, lanes);
      });
    gemm<T>(rows, std::min(kPullColumns, width - column), p.n, T(1), {weights.get(), p.n, 1},
            {p.student.rows + column, width, 1}, {p.pull + first * width + column, width, 1});
  }
}

template <class T>
void cka_back(const Cka<T>& p, int64_t begin, int64_t end) {
  const int64_t width = p.student.given.width;
  const Pack<T> factor(p.factor), scale(p.student.scale), weight(p.weight);
  for (int64_t r = begin * kTokenGroup; r < std::min(end * kTokenGroup, p.n); ++r) {
    const T* pull = p.pull + r * width;
    T* target = p.gradient + p.present[r] * width;
    for_packs<T>(width, [&](int64_t k, int lanes) {
      store_some(load_some(pull + k, lanes) * factor * weight * scale, target + k, lanes);
    });
  }
}

KDOPS_COMPILE_REAL(cka_largest)
KDOPS_COMPILE_REAL(cka_columns)
KDOPS_COMPILE_REAL(cka_kernels)
KDOPS_COMPILE_REAL(cka_differences)
KDOPS_COMPILE_REAL(cka_pull)
KDOPS_COMPILE_REAL(cka_back)

}  // namespace kdops::token_gram::KDOPS_ISA
