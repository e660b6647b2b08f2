// CPU glue of cka_loss: matrix after matrix with its steps shared among the threads, or, where they
// are small, a matrix a thread. Work memory is that of a matrix (a thread); sums are taken in order,
// so that results do not depend on the number of threads.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/parallel.h"
#include "common/torch/tensors.h"
#include "token_gram/cka_steps.h"

namespace kdops::token_gram {
namespace {

template <class T>
struct CkaBatch {
  const Tensor &student, &teacher;
  const bool* inside;  // (B, N), or null: all rows count
  bool centred;
  Tensor gradient;
  bool gradients;

  int64_t count() const { return student.size(0); }

  std::vector<int64_t> present(int64_t b) const {
    std::vector<int64_t> rows;
    const int64_t n = student.size(1);
    rows.reserve(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i)
      if (inside == nullptr || inside[b * n + i]) rows.push_back(i);
    return rows;
  }
  Cka<T> matrix(int64_t b, const std::vector<int64_t>& rows) const {
    Cka<T> p{};
    p.student.given = tokens_of<T>(student, b);
    p.teacher.given = tokens_of<T>(teacher, b);
    p.present = rows.data();
    p.n = static_cast<int64_t>(rows.size());
    p.centred = centred;
    p.weight = static_cast<T>(1 / static_cast<double>(count()));
    if (gradients) p.gradient = pointer<T>(gradient) + b * student.size(1) * student.size(2);
    return p;
  }
};

// A matrix of floats again, in double; its gradient in its place.
template <class Run>
double in_double(const Cka<float>& p, const CkaSizes& sizes, const Run& run) {
  const bool gradients = p.gradient != nullptr;
  const CkaWork<double> work(sizes, gradients);
  Scratch<double> student(p.n * sizes.student), teacher(p.n * sizes.teacher);
  Scratch<double> gradient(gradients ? p.n * sizes.student : 0);
  std::vector<int64_t> all(static_cast<size_t>(p.n));
  for (int64_t i = 0; i < p.n; ++i) all[static_cast<size_t>(i)] = i;
  Cka<double> wide{};
  wide.student.given = widened(p.student.given, p.present, p.n, student.get());
  wide.teacher.given = widened(p.teacher.given, p.present, p.n, teacher.get());
  wide.present = all.data();
  wide.n = p.n;
  wide.centred = p.centred;
  wide.weight = static_cast<double>(p.weight);
  wide.gradient = gradient.get();
  const double loss = cka_of(wide, work, run);
  for (int64_t i = 0; gradients && i < p.n; ++i)
    for (int64_t k = 0; k < sizes.student; ++k)
      p.gradient[p.present[i] * sizes.student + k] =
          static_cast<float>(gradient[i * sizes.student + k]);
  return loss;
}

template <class T, class Run>
double loss_of(const CkaBatch<T>& batch, int64_t b, const Run& run) {
  const std::vector<int64_t> rows = batch.present(b);
  const CkaSizes sizes{static_cast<int64_t>(rows.size()), batch.student.size(2),
                       batch.teacher.size(2)};
  const Cka<T> p = batch.matrix(b, rows);
  const double loss = cka_of(p, CkaWork<T>(sizes, batch.gradients), run);
  if constexpr (sizeof(T) == sizeof(float))
    if (!sizes.by_rows() && loss < kAlike) return in_double(p, sizes, run);
  return loss;
}

template <class T>
double mean_of(const CkaBatch<T>& batch) {
  const int64_t count = batch.count();
  if (count == 0) return 0;
  const CkaSizes most{batch.student.size(1), batch.student.size(2), batch.teacher.size(2)};
  std::vector<double> losses(static_cast<size_t>(count));
  over_images(count, most.flops(), [&](int64_t begin, int64_t end, const auto& run) {
    for (int64_t b = begin; b < end; ++b) losses[b] = loss_of(batch, b, run);
  });
  return ordered_sum(losses) / static_cast<double>(count);
}

std::tuple<Tensor, Tensor> cka_loss_cpu(const Tensor& student, const Tensor& teacher,
                                        const std::optional<Tensor>& inside, bool centred,
                                        bool gradients) {
  const char* op = "cka_loss";
  check_tokens(op, student, teacher);
  if (inside) {
    check_dim(op, "inside", *inside, 2);
    check_size(op, "inside", *inside, 0, student.size(0));
    check_size(op, "inside", *inside, 1, student.size(1));
    STD_TORCH_CHECK(inside->scalar_type() == ScalarType::Bool, op, ": expected inside of bool");
  }
  Tensor loss = empty_for(student, {});
  Tensor gradient = gradient_for(student, gradients);
  const std::optional<Tensor> dense = contiguous_of(inside);
  for_real_type(op, student, [&]<class T>(T) {
    if (dense) std::fill_n(pointer<T>(gradient), gradient.numel(), T(0));  // padding has none
    const CkaBatch<T> batch{student, teacher,  pointer_or_null<bool>(dense),
                            centred, gradient, gradients};
    *pointer<T>(loss) = static_cast<T>(mean_of(batch));
  });
  return {loss, gradient};
}

}  // namespace
}  // namespace kdops::token_gram

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("cka_loss", TORCH_BOX(&kdops::token_gram::cka_loss_cpu));
}
