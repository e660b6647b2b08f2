// CPU glue of rbf_affinity and rbf_affinity_loss: prepares centred rows, splits blocks of rows over
// the threads. Blocks depend on sizes only, sums over blocks are taken in order: results do not
// depend on the number of threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "common/simd/scratch.h"
#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/parallel.h"
#include "common/torch/tensors.h"
#include "rbf/affinity_simd.h"

namespace kdops::rbf {
namespace {

// A contiguous input and what is derived from it.
template <class T>
class Prepared {
 public:
  Prepared(const Tensor& rows, bool products)
      : tensor_(contiguous_of(rows)),
        centred_(rows.numel()),
        transposed_(products ? rows.numel() : 0),
        norms_(rows.size(0) * rows.size(1)),
        sizes_(rows.size(0) * rows.size(1)) {
    set_ = {pointer<T>(tensor_), centred_.get(), transposed_.get(), norms_.get(),
            sizes_.get(),        rows.size(1),   rows.size(2)};
  }

  const RowSet<T>& set() const { return set_; }

  void centre(const T* centre) {
    const int64_t rows = tensor_.size(0) * set_.count;
    parallel_for(rows, 4.0 * static_cast<double>(set_.width), KDOPS_BEST(rbf_centre<T>), set_,
                 centre);
  }

 private:
  Tensor tensor_;
  Scratch<T> centred_, transposed_, norms_, sizes_;
  RowSet<T> set_;
};

// Two sets of rows minus their common mean per batch entry; without y the second is the first.
// products: somebody will multiply with the rows of the second.
template <class T>
struct Centred {
  Prepared<T> x;
  std::optional<Prepared<T>> others;

  Centred(const Tensor& x_rows, const std::optional<Tensor>& y_rows, bool products)
      : x(x_rows, products && !y_rows) {
    if (y_rows) others.emplace(*y_rows, products);
    const int64_t batch = x_rows.size(0), width = x.set().width;
    Scratch<T> means(batch * width);
    parallel_for(batch, static_cast<double>(x.set().count * width), KDOPS_BEST(rbf_means<T>),
                 x.set(), others ? others->set() : RowSet<T>{}, means.get());
    x.centre(means.get());
    if (others) others->centre(means.get());
  }
  const RowSet<T>& y() const { return (others ? *others : x).set(); }
};

template <class T>
std::vector<T> bandwidths(const std::optional<Tensor>& gamma, double value, int64_t batch) {
  std::vector<T> values(static_cast<size_t>(batch), static_cast<T>(value));
  if (gamma) {
    const Tensor dense = contiguous_of(*gamma);
    const T* from = pointer<T>(dense);
    for (size_t b = 0; b < values.size(); ++b) values[b] = from[b];
  }
  return values;
}

void check_rows(const char* op, const Tensor& x, const std::optional<Tensor>& y,
                const std::optional<Tensor>& gamma) {
  check_dim(op, "x", x, 3);
  if (y) check_sizes(op, "y", *y, x, {x.size(0), kAnySize, x.size(2)});
  if (gamma) check_sizes(op, "gamma", *gamma, x, {x.size(0)});
}

Tensor rbf_affinity_cpu(const Tensor& x, const std::optional<Tensor>& y,
                        const std::optional<Tensor>& gamma, double value) {
  check_rows("rbf_affinity", x, y, gamma);
  const int64_t batch = x.size(0), n = x.size(1), m = y ? y->size(1) : n;
  Tensor out = empty_for(x, {batch, n, m});
  for_real_type("rbf_affinity", x, [&]<class T>(T) {
    const Centred<T> sets(x, y, true);
    const std::vector<T> gammas = bandwidths<T>(gamma, value, batch);
    const AffinityProblem<T> problem{sets.x.set(), sets.y(), !y, gammas.data(), pointer<T>(out)};
    const double flops = static_cast<double>(kBlockRows * m * (x.size(2) * (y ? 2 : 1) + 20));
    parallel_for(batch * blocks_of(n), flops, KDOPS_BEST(rbf_affinity_blocks<T>), problem);
  });
  return out;
}

// The gradient of one set of rows.
template <class T>
Tensor backward_side(const Tensor& like, const RowSet<T>& own, const RowSet<T>& other, Sides sides,
                     const std::vector<T>& gammas, const Tensor& grad, const Tensor& k) {
  const int64_t batch = grad.size(0);
  Tensor out = empty_for(like, {batch, own.count, own.width});
  const AffinityBackward<T> problem{
      own, other, sides, gammas.data(), pointer<T>(grad), pointer<T>(k), pointer<T>(out)};
  const double flops = 2.0 * static_cast<double>(kBlockRows * other.count * (own.width + 12));
  parallel_for(batch * blocks_of(own.count), flops, KDOPS_BEST(rbf_affinity_backward_blocks<T>),
               problem);
  return out;
}

// dL/dgamma = -sum grad K d^2 for every batch entry. Not from the gradients of the rows (Euler's
// theorem): their inner products with far rows cancel.
template <class T>
Tensor gamma_gradient(const Tensor& like, const RowSet<T>& x, const RowSet<T>& y,
                      const Tensor& grad, const Tensor& k) {
  const int64_t batch = grad.size(0), blocks = blocks_of(x.count);
  std::vector<double> sums(static_cast<size_t>(batch * blocks));
  const AffinitySlope<T> problem{x, y, pointer<T>(grad), pointer<T>(k), sums.data()};
  const double flops = 2.0 * static_cast<double>(kBlockRows * y.count * (x.width + 8));
  parallel_for(batch * blocks, flops, KDOPS_BEST(rbf_affinity_slopes<T>), problem);
  Tensor out = empty_for(like, {batch});
  for (int64_t b = 0; b < batch; ++b)
    pointer<T>(out)[b] = static_cast<T>(-ordered_sum(sums.data() + b * blocks, blocks));
  return out;
}

std::tuple<Tensor, Tensor, Tensor> rbf_affinity_backward_cpu(const Tensor& grad, const Tensor& x,
                                                             const std::optional<Tensor>& y,
                                                             const std::optional<Tensor>& gamma,
                                                             double value, const Tensor& k) {
  const char* op = "rbf_affinity_backward";
  check_rows(op, x, y, gamma);
  for (const Tensor* matrix : {&grad, &k})
    check_sizes(op, "grad and k", *matrix, x, {x.size(0), x.size(1), (y ? *y : x).size(1)});
  const Tensor g = contiguous_of(grad), kernel = contiguous_of(k);
  Tensor gx, gy = empty_for(x, {0}), g_gamma = empty_for(x, {0});
  for_real_type(op, x, [&]<class T>(T) {
    const Centred<T> sets(x, y, gamma.has_value());
    const RowSet<T>&own = sets.x.set(), &other = sets.y();
    const std::vector<T> gammas = bandwidths<T>(gamma, value, x.size(0));
    gx = backward_side(x, own, other, y ? Sides::rows : Sides::both, gammas, g, kernel);
    if (y) gy = backward_side(x, other, own, Sides::columns, gammas, g, kernel);
    if (gamma) g_gamma = gamma_gradient(x, own, other, g, kernel);
  });
  return {gx, gy, g_gamma};
}

template <class T>
void affinity_loss(const Tensor& student, const Tensor& teacher, const std::optional<Tensor>& gamma,
                   double value, bool gradients, Tensor& loss, Tensor& g_student, Tensor& g_gamma) {
  const int64_t n = student.size(1);
  const Centred<T> s(student, std::nullopt, true), t(teacher, std::nullopt, true);
  std::vector<double> losses(static_cast<size_t>(blocks_of(n))), slopes(losses.size());
  const double bandwidth = gamma ? static_cast<double>(*pointer<T>(*gamma)) : value;
  const AffinityLossProblem<T> problem{
      s.x.set(),     t.x.set(),    bandwidth, gradients, pointer<T>(g_student),
      losses.data(), slopes.data()};
  const double width = static_cast<double>(2 * student.size(2) + teacher.size(2) + 40);
  parallel_for(blocks_of(n), 2.0 * kBlockRows * static_cast<double>(n) * width,
               KDOPS_BEST(rbf_affinity_loss_blocks<T>), problem);
  const double total = ordered_sum(losses), slope = ordered_sum(slopes);
  const double pairs = std::max(static_cast<double>(n) * static_cast<double>(n), 1.0);
  *pointer<T>(loss) = static_cast<T>(total / pairs);
  if (gamma && gradients) *pointer<T>(g_gamma) = static_cast<T>(slope / pairs);
}

std::tuple<Tensor, Tensor, Tensor> rbf_affinity_loss_cpu(const Tensor& student,
                                                         const std::optional<Tensor>& gamma,
                                                         const Tensor& teacher, double value,
                                                         bool gradients) {
  const char* op = "rbf_affinity_loss";
  check_row_sets(op, student, teacher);
  if (gamma) check_sizes(op, "gamma", *gamma, student, {});
  const Tensor s = torch::stable::unsqueeze(student, 0), t = torch::stable::unsqueeze(teacher, 0);
  Tensor loss = empty_for(student, {});
  Tensor g_student = gradient_for(student, gradients);
  Tensor g_gamma = gamma && gradients ? empty_for(student, {}) : empty_for(student, {0});
  for_real_type(op, student, [&]<class T>(T) {
    affinity_loss<T>(s, t, gamma, value, gradients, loss, g_student, g_gamma);
  });
  return {loss, g_student, g_gamma};
}

}  // namespace
}  // namespace kdops::rbf

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("rbf_affinity", TORCH_BOX(&kdops::rbf::rbf_affinity_cpu));
  m.impl("rbf_affinity_backward", TORCH_BOX(&kdops::rbf::rbf_affinity_backward_cpu));
  m.impl("rbf_affinity_loss", TORCH_BOX(&kdops::rbf::rbf_affinity_loss_cpu));
}
