// The steps of one matrix of cka_loss, in the order of its route, on one thread or shared among all.
// Glue: compiled once. Caller: cka_cpu.cpp.
#pragma once

#include <algorithm>
#include <cmath>

#include "common/shared/power_of_two.h"
#include "token_gram/cka_simd.h"
#include "token_gram/image.h"

namespace kdops::token_gram {

// By columns the loss and its gradient are differences. Where the loss is smaller, student and teacher
// so much alike, float has too few digits for what is left.
inline constexpr double kAlike = 0.25;

struct CkaSizes {
  int64_t n, student, teacher;

  // K (n x n) and the difference of both, which keeps its digits; else products of columns, which
  // are fewer. kdops/ops/token_gram/cka.py asks the same.
  bool by_rows() const {
    const double a = static_cast<double>(student), b = static_cast<double>(teacher);
    return static_cast<double>(n) * (a + b) <= 2 * (a * a + a * b + b * b);
  }
  double flops() const {
    const double a = static_cast<double>(student), b = static_cast<double>(teacher);
    const double rows = static_cast<double>(n), least = 2 * (a * a + a * b + b * b);
    return 2 * rows * std::min(rows * (a + b), least);
  }
};

// 1 / |K| by the sum of its squares; 0 where that is 0, NaN where it is NaN.
inline double inverse_norm(double squares) { return squares == 0 ? 0 : 1 / std::sqrt(squares); }

// Work memory of one matrix; T is what is computed in.
template <class T>
struct CkaWork {
  CkaSizes sizes;
  bool rows;
  ProductBlocks blocks;
  Scratch<T> x, y, pull, student, teacher;  // student, teacher: K, or XT X and YT X
  Scratch<double> sums;

  CkaWork(const CkaSizes& n, bool gradients)
      : sizes(n),
        rows(n.by_rows()),
        blocks(product_blocks(n.student, n.teacher)),
        x(n.n * n.student),
        y(n.n * n.teacher),
        pull(gradients ? n.n * n.student : 0),
        student(rows ? n.n * n.n : n.student * n.student),
        teacher(rows ? n.n * n.n : n.teacher * n.student),
        sums(std::max({2 * token_groups(n.n), kernel_blocks(), product_sums()})) {}

  int64_t kernel_blocks() const {
    const int64_t blocks = feature_blocks(sizes.n);
    return rows ? blocks * (blocks + 1) : 0;
  }
  int64_t product_sums() const { return rows ? 0 : blocks.student + blocks.mixed + blocks.teacher; }
};

template <class T, class Run>
void prepare_rows(Cka<T>& p, const CkaWork<T>& work, const Run& run) {
  const int64_t groups = token_groups(p.n), a = work.sizes.student, b = work.sizes.teacher;
  run(2 * groups, static_cast<double>(kTokenGroup * (a + b)), KDOPS_BEST(cka_largest<T>), p);
  const auto scale_of = [&](int64_t first) {
    const double* of = p.sums + first;
    return row_scale(static_cast<T>(*std::max_element(of, of + groups)));
  };
  p.student.scale = scale_of(0);
  p.teacher.scale = scale_of(groups);
  run(column_blocks(a) + column_blocks(b), static_cast<double>(8 * p.n * kColumns),
      KDOPS_BEST(cka_columns<T>), p);
}

template <class T, class Run>
void compare_rows(Cka<T>& p, const CkaWork<T>& work, const Run& run) {
  const int64_t a = work.sizes.student, blocks = work.kernel_blocks();
  p.student.kernel = work.student.get();
  p.teacher.kernel = work.teacher.get();
  run(blocks, static_cast<double>(kFeatureBlock * kFeatureBlock * (a + work.sizes.teacher)),
      KDOPS_BEST(cka_kernels<T>), p);
  p.student.own = inverse_norm(ordered_sum(p.sums, blocks / 2));
  p.teacher.own = inverse_norm(ordered_sum(p.sums + blocks / 2, blocks / 2));
  run(token_groups(p.n), static_cast<double>(4 * kTokenGroup * p.n), KDOPS_BEST(cka_differences<T>),
      p);
  p.loss = ordered_sum(p.sums, token_groups(p.n)) / 2;
  p.factor = static_cast<T>(2 * p.student.own);
  if (p.pull == nullptr) return;
  run(feature_blocks(p.n) * pull_chunks(a),
      static_cast<double>(2 * kFeatureBlock * kPullColumns * p.n), KDOPS_BEST(cka_pull<T>), p);
}

// <K_S, K_T> = |YT X|^2: the products of gram_anchoring_loss, and its pull with the student's part
// of another weight.
template <class T, class Run>
void compare_columns(Cka<T>& p, const CkaWork<T>& work, const Run& run) {
  const int64_t a = work.sizes.student, b = work.sizes.teacher;
  Anchoring<T> of{};
  of.tokens = p.n;
  of.x = by_rows(p.student.rows, a, a);
  of.y = by_rows(p.teacher.rows, b, b);
  of.pull = by_rows(p.pull, a, a);
  of.xx = work.student.get();
  of.yx = work.teacher.get();
  of.products_row = a;
  of.sums = p.sums;
  run(work.product_sums(), static_cast<double>(2 * kFeatureBlock * kFeatureBlock * p.n),
      KDOPS_BEST(anchor_products<T>), of);
  const auto& blocks = work.blocks;
  p.student.own = inverse_norm(ordered_sum(p.sums, blocks.student));
  const double mixed = ordered_sum(p.sums + blocks.student, blocks.mixed);
  p.teacher.own = inverse_norm(ordered_sum(p.sums + blocks.student + blocks.mixed, blocks.teacher));
  p.loss = 1 - mixed * p.student.own * p.teacher.own;
  p.factor = static_cast<T>(2 * p.student.own * p.teacher.own);
  if (p.pull == nullptr) return;
  const T part = static_cast<T>(mixed * p.student.own * p.student.own);
  for (int64_t i = 0; i < a * a; ++i) of.xx[i] *= part;
  run((p.n + kTokenBlock - 1) / kTokenBlock, static_cast<double>(2 * kTokenBlock * a * (a + b)),
      KDOPS_BEST(anchor_pull<T>), of);
}

// 1 - CKA of a matrix, and its gradient where one is wanted, of the rows that count.
template <class T, class Run>
double cka_of(Cka<T> p, const CkaWork<T>& work, const Run& run) {
  p.student.rows = work.x.get();
  p.teacher.rows = work.y.get();
  p.pull = p.gradient ? work.pull.get() : nullptr;
  p.sums = work.sums.get();
  if (p.n == 0) return 1;
  prepare_rows(p, work, run);
  work.rows ? compare_rows(p, work, run) : compare_columns(p, work, run);
  const double both = p.student.own * p.teacher.own;
  if (both == 0) p.factor = T(0);  // CKA of rows without variance is 0
  if (p.gradient != nullptr)
    run(token_groups(p.n), static_cast<double>(8 * kTokenGroup * work.sizes.student),
        KDOPS_BEST(cka_back<T>), p);
  return both == 0 ? 1 : p.loss;
}

}  // namespace kdops::token_gram
