// The fused Gram losses on raw pointers, compiled once per instruction set.
#include "gram/loss_simd.h"

#include "common/simd/transpose.h"
#include "gram/loss_item.h"
#include "gram/unit_rows.h"

namespace kdops::gram::KDOPS_ISA {

namespace {

// The channels of a map of an item of nst_loss as unit vectors, lying as the map does: rows of
// channels, or the channels side by side.
template <class T>
struct UnitMap {
  Scratch<T> numbers, inverse;
  int64_t channels, length;
  bool inner;

  UnitMap(int64_t channels, int64_t length, bool inner)
      : numbers(channels * length),
        inverse(channels),
        channels(channels),
        length(length),
        inner(inner) {}

  void make(View<const T> x) {
    if (inner)
      make_unit_columns(x.turned(), length, channels, numbers.get(), inverse.get());
    else
      make_unit_rows(x, channels, length, numbers.get(), inverse.get());
  }
  void back(T* g) const {
    if (inner)
      unit_columns_back(numbers.get(), inverse.get(), length, channels, g);
    else
      unit_rows_back(numbers.get(), inverse.get(), channels, length, g);
  }
  View<const T> rows() const {  // channels x length
    return inner ? dense<T>(numbers.get(), channels).turned() : dense<T>(numbers.get(), length);
  }
};

// D is length x length and symmetric: half of it, mirrored.
template <class T>
void nst_by_length(const NstLoss<T>& p, int64_t b, View<const T> s, View<const T> t, T* d,
                   const Target<T>& gradient) {
  const int64_t n = p.length, cs = p.student_channels, ct = p.teacher_channels;
  gemm<T>(n, n, cs, T(1) / static_cast<T>(cs), s.turned(), s, {d, n, 1}, false, Part::upper);
  gemm<T>(n, n, ct, T(-1) / static_cast<T>(ct), t.turned(), t, {d, n, 1}, true, Part::upper);
  mirror_upper(d, n);
  p.loss[b] = reduce_squares(d, n * n, p.coefficient);
  if (gradient.data != nullptr)
    add_product(n, T(2) / static_cast<T>(cs), s, dense<T>(d, n), gradient);
}

// The positions of the maps are the channels of item_by_positions, whose gradient has one of them a
// row: that of tokens as it is wanted, of rows of channels `turned`.
template <class T>
void nst_by_channels(const NstLoss<T>& p, int64_t b, View<const T> s, View<const T> t, T* turned,
                     const Target<T>& gradient, Positions<T>& work) {
  const int64_t n = p.length, c = p.student_channels;
  const T scale = T(1) / static_cast<T>(c);
  const auto maps = [](View<const T> x) { return Maps<T>{x.data, 0, x.col, x.row}; };
  T* target = gradient.inner ? gradient.data : turned;
  const GramLoss<T> problem{.x1 = maps(s),
                            .x2 = maps(s),
                            .y1 = maps(t),
                            .y2 = maps(t),
                            .c1 = n,
                            .c2 = n,
                            .student_length = c,
                            .teacher_length = c,
                            .scale_s = scale,
                            .scale_t = scale,
                            .coefficient = p.coefficient,
                            .positions = true,
                            .symmetric = true,
                            .loss = p.loss + b,
                            .g1 = gradient.data ? target : nullptr};
  item_by_positions(problem, 0, work);
  if (gradient.data != nullptr && !gradient.inner)
    transpose_block<T>(turned, c, n, c, gradient.data, n);
}

}  // namespace

template <class T>
void nst_loss(const NstLoss<T>& p, int64_t begin, int64_t end) {
  const int64_t channels = p.student_channels, n = p.length;
  UnitMap<T> student(channels, n, p.inner), teacher(p.teacher_channels, n, p.teacher.channel == 1);
  Positions<T> work(n, 0, p.by_channels ? channels : 0);
  Scratch<T> d(p.by_channels ? 0 : n * n),
      turned(p.by_channels && p.gradient && !p.inner ? channels * n : 0);
  for (int64_t b = begin; b < end; ++b) {
    teacher.make(rows_of(p.teacher, b));
    student.make(rows_of(p.student, b));
    const Target<T> gradient{p.gradient ? p.gradient + b * channels * n : nullptr, channels, n,
                             p.inner};
    if (p.by_channels)
      nst_by_channels(p, b, student.rows(), teacher.rows(), turned.get(), gradient, work);
    else
      nst_by_length(p, b, student.rows(), teacher.rows(), d.get(), gradient);
    if (gradient.data != nullptr) student.back(gradient.data);
  }
}

template <class T>
void gram_loss(const GramLoss<T>& p, int64_t begin, int64_t end) {
  if (p.positions) {
    Positions<T> work(p.c1, p.symmetric ? 0 : p.c2, p.student_length);
    for (int64_t b = begin; b < end; ++b) item_by_positions(p, b, work);
    return;
  }
  Scratch<T> d(p.c1 * p.c2), spare(p.c1 * p.c2);
  for (int64_t b = begin; b < end; ++b) item_by_channels(p, b, d.get(), spare.get());
}

KDOPS_COMPILE_REAL(nst_loss)
KDOPS_COMPILE_REAL(gram_loss)

}  // namespace kdops::gram::KDOPS_ISA
