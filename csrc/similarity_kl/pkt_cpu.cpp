// CPU glue of PKT's loss. Blocks depend on sizes only, and their losses are added in order.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "common/torch/parallel.h"
#include "similarity_kl/pkt_simd.h"
#include "similarity_kl/rows_of.h"

namespace kdops::similarity_kl {
namespace {

// sum_j e_j w_j z_j, what every row's gradient loses to the sums of the others' shares.
template <class T>
void add_common(const PktProblem<T>& problem) {
  const auto& [count, width] = std::tuple{problem.given[0].count, problem.given[0].width};
  std::fill_n(problem.common, width, 0.0);
  const T* rows = problem.networks[0].rows.rows;
  for (int64_t i = 0; i < count; ++i)
    for (int64_t k = 0; k < width; ++k)
      problem.common[k] += problem.shares[i] * static_cast<double>(rows[i * width + k]);
}

template <class T>
void compute(const Tensor& student, const Tensor& teacher, double epsilon, bool gradients,
             const Tensor& loss, const Tensor& gradient) {
  const Tensor s = torch::stable::unsqueeze(student, 0), t = torch::stable::unsqueeze(teacher, 0);
  const int64_t count = s.size(1), width = s.size(2), blocks = (count + kBlock - 1) / kBlock;
  const Counted all(std::nullopt, 1, count);
  GivenRows<T> given_s(s, all), given_t(t, all);
  PlacedRows<T> placed_s(given_s.get(), 1, true, true, true);
  PlacedRows<T> placed_t(given_t.get(), 1, true, true, true);
  Scratch<double> centres(width + t.size(2)), losses(blocks), shares(count), weights(count);
  Scratch<double> common(width);
  const PktProblem<T> problem{{given_s.get(), given_t.get()},
                              {{placed_s.get(), placed_s.get(), centres.get(), nullptr, 1},
                               {placed_t.get(), placed_t.get(), centres.get() + width, nullptr, 1}},
                              epsilon,
                              gradients,
                              losses.get(),
                              shares.get(),
                              weights.get(),
                              common.get(),
                              gradients ? pointer<T>(gradient) : nullptr};
  const double flops =
      2.0 * static_cast<double>(kBlock * count) * static_cast<double>(2 * width + t.size(2) + 40);
  parallel_for(2, 12.0 * static_cast<double>(count * width), KDOPS_BEST(pkt_place<T>), problem);
  parallel_for(blocks, flops, KDOPS_BEST(pkt_blocks<T>), problem);
  const double rows = static_cast<double>(std::max<int64_t>(count, 1));
  *pointer<T>(loss) = static_cast<T>(ordered_sum(losses.get(), blocks) / (rows * rows * rows));
  if (!gradients) return;
  add_common(problem);
  parallel_for(count, 8.0 * static_cast<double>(width), KDOPS_BEST(pkt_finish<T>), problem);
}

std::tuple<Tensor, Tensor> pkt_cpu(const Tensor& student, const Tensor& teacher, double epsilon,
                                   bool gradients) {
  const char* op = "pkt";
  check_row_sets(op, student, teacher);
  const Tensor loss = empty_for(student, {});
  const Tensor gradient = gradient_for(student, gradients);
  for_real_type(op, student, [&]<class T>(T) {
    compute<T>(student, teacher, epsilon, gradients, loss, gradient);
  });
  return {loss, gradient};
}

}  // namespace
}  // namespace kdops::similarity_kl

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("pkt", TORCH_BOX(&kdops::similarity_kl::pkt_cpu));
}
