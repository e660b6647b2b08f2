// CPU glue of the similarity KL: checks, memory, and the passes over torch's threads. Items depend on
// sizes only, and losses are added in their order: results do not depend on the number of threads.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numbers>
#include <tuple>

#include "common/torch/parallel.h"
#include "similarity_kl/rows_of.h"
#include "similarity_kl/similarity_kl_simd.h"

namespace kdops::similarity_kl {
namespace {

constexpr const char* kOp = "similarity_kl";
// A logit so large is known to 1e-5 in float; beyond, float rows are computed with in double.
constexpr double kLargestLogit = 100;

// The products of so many pairs are kept from the first pass for the second: 2 MB of float.
constexpr int64_t kMostKept = 1 << 19;

int64_t blocks_of(int64_t count) { return (count + kBlock - 1) / kBlock; }

struct Settings {
  double student_scale, teacher_scale;
  bool cosine, self_pairs, gradients, of_keys;
};

struct Results {
  Tensor loss, g_student, g_keys;
};

// One network's inputs: rows and keys, which may be the rows.
template <class In>
struct Side {
  GivenRows<In> rows;
  std::unique_ptr<GivenRows<In>> others;
  double scale;

  Side(const Tensor& given, const std::optional<Tensor>& keys, const Counted& counted,
       const Counted& all, double factor)
      : rows(given, counted), scale(factor) {
    if (keys) others = std::make_unique<GivenRows<In>>(*keys, all);
  }
  const Given<In>& keys() const { return others ? others->get() : rows.get(); }

  void measure(int64_t batch, Norm norm) {
    for (const Given<In>* set : {&rows.get(), &keys()})
      if (set == &rows.get() || others)
        parallel_for(batch, 4.0 * static_cast<double>(set->count * set->width),
                     KDOPS_BEST(kl_measure<In>), *set, norm);
  }
  double largest_logit() const {
    return std::abs(scale) * rows.longest() * (others ? *others : rows).longest();
  }
};

// A side as it is computed with.
template <class In, class T>
class PlacedSide {
 public:
  PlacedSide(const Side<In>& from, int64_t batch, bool of_keys)
      : rows_(from.rows.get(), batch, !from.others || of_keys, !from.others, true),
        centres_(batch * from.keys().width),
        kept_(numbers_to_keep(batch, from.rows.get().count, from.keys().count)) {
    if (from.others) keys_ = std::make_unique<PlacedRows<T>>(from.keys(), batch, true, true, false);
    network_ = {rows_.get(), keys_ ? keys_->get() : rows_.get(), centres_.get(), kept_.get(),
                from.scale * std::numbers::log2e};
    const Placing<In, T> problem{from.rows.get(), from.keys(), network_, !from.others};
    parallel_for(batch, 8.0 * static_cast<double>(from.keys().count * from.keys().width),
                 KDOPS_BEST(kl_place<In, T>), problem);
  }
  const Network<T>& network() const { return network_; }

 private:
  static int64_t numbers_to_keep(int64_t batch, int64_t rows, int64_t keys) {
    const int64_t numbers = batch * blocks_of(rows) * products_of(keys);
    return numbers <= kMostKept ? numbers : 0;
  }

  PlacedRows<T> rows_;
  std::unique_ptr<PlacedRows<T>> keys_;
  Scratch<double> centres_;
  Scratch<T> kept_;
  Network<T> network_;
};

template <class T>
void find_logs(const Network<T>& network, int64_t batch, bool without_self, double* logs) {
  const Statistics<T> problem{network, without_self, logs, blocks_of(network.rows.count)};
  const double pairs = static_cast<double>(kBlock * network.keys.count);
  parallel_for(batch * problem.blocks, 2 * pairs * static_cast<double>(network.rows.width + 10),
               KDOPS_BEST(kl_statistics<T>), problem);
}

// The sums of both networks' exponentials, as Placed::lse wants them.
template <class T>
void find_statistics(const Network<T>& student, const Network<T>& teacher, int64_t batch,
                     bool without_self) {
  const int64_t count = student.rows.count;
  Scratch<double> of_s(batch * count), of_t(batch * count);
  find_logs(student, batch, without_self, of_s.get());
  find_logs(teacher, batch, without_self, of_t.get());
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t i = 0; i < padded(count); ++i) {
      const int64_t from = b * count + i, to = b * padded(count) + i;
      const bool known = i < student.rows.used[b];  // behind them no key has a share
      const double t = known ? of_t[from] : -kExcluded<T>, s = known ? of_s[from] : -kExcluded<T>;
      teacher.rows.lse[to] = static_cast<T>(t);
      student.rows.lse[to] = static_cast<T>(std::is_same_v<T, double> ? s : t - s);
    }
}

// The sum over all rows of their KL divergence (Sides::keys: 0), and the gradient of one set of rows.
template <class In, class T>
double pull(const Side<In>& student, const Network<T>& s, const Network<T>& t, int64_t batch,
            const Settings& settings, double factor, Sides sides, const Tensor& out) {
  const bool of_keys = sides == Sides::keys;
  const Given<In>& own = of_keys ? student.keys() : student.rows.get();
  const int64_t blocks = blocks_of(own.count),
                others = of_keys ? student.rows.get().count : student.keys().count;
  Scratch<double> losses(of_keys ? 0 : batch * blocks);
  const bool gradients = of_keys || settings.gradients;
  const Pull<In, T> problem{.student = s,
                            .teacher = t,
                            .given = own,
                            .norm = settings.cosine ? Norm::unit : Norm::none,
                            .without_self = !settings.self_pairs,
                            .gradients = gradients,
                            .factor = factor,
                            .out = gradients ? pointer<In>(out) : nullptr,
                            .losses = losses.get(),
                            .sides = sides,
                            .blocks = blocks};
  const double width = static_cast<double>(2 * own.width + t.rows.width + 40);
  parallel_for(batch * blocks, 2 * width * static_cast<double>(kBlock * others),
               KDOPS_BEST(kl_pull<In, T>), problem);
  return of_keys ? 0 : ordered_sum(losses.get(), batch * blocks);
}

template <class In, class T>
void compute(const Side<In>& student, const Side<In>& teacher, int64_t batch, int64_t total,
             const Settings& settings, const Results& results) {
  const PlacedSide<In, T> placed_s(student, batch, settings.of_keys);
  const PlacedSide<In, T> placed_t(teacher, batch, settings.of_keys);
  const Network<T>&s = placed_s.network(), &t = placed_t.network();
  find_statistics(s, t, batch, !settings.self_pairs);
  const double share = 1.0 / static_cast<double>(std::max<int64_t>(total, 1));
  const double factor = share * settings.student_scale;
  const Sides sides = student.others ? Sides::rows : Sides::both;
  const double loss = pull(student, s, t, batch, settings, factor, sides, results.g_student);
  if (settings.of_keys) pull(student, s, t, batch, settings, factor, Sides::keys, results.g_keys);
  *pointer<In>(results.loss) = static_cast<In>(loss * share);
}

void check_rows(const Tensor& student, const std::optional<Tensor>& keys, const Tensor& teacher,
                const std::optional<Tensor>& teacher_keys, const std::optional<Tensor>& mask,
                const Settings& settings) {
  check_dim(kOp, "student", student, 3);
  check_sizes(kOp, "teacher", teacher, student, {student.size(0), student.size(1), kAnySize});
  STD_TORCH_CHECK(keys.has_value() == teacher_keys.has_value(), kOp,
                  ": expected keys of both networks, or of none");
  STD_TORCH_CHECK(keys.has_value() ? settings.self_pairs : !settings.of_keys, kOp,
                  ": of_keys needs keys, and keys need self_pairs");
  if (keys) {
    check_sizes(kOp, "keys", *keys, student, {student.size(0), kAnySize, student.size(2)});
    check_sizes(kOp, "teacher_keys", *teacher_keys, student,
                {student.size(0), keys->size(1), teacher.size(2)});
  }
  if (!mask) return;
  check_dim(kOp, "mask", *mask, 2);
  STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Bool, kOp, ": expected mask of dtype bool");
  STD_TORCH_CHECK(mask->device() == student.device(), kOp,
                  ": mask is on another device than the first argument");
  for (const int64_t axis : {0, 1}) check_size(kOp, "mask", *mask, axis, student.size(axis));
}

Tensor gradient_of(const Tensor& rows, bool wanted, bool zero) {
  Tensor out = gradient_for(rows, wanted);
  const size_t bytes = rows.scalar_type() == ScalarType::Double ? 8 : 4;
  if (zero && out.numel() > 0)
    std::memset(out.data_ptr(), 0, static_cast<size_t>(out.numel()) * bytes);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> similarity_kl_cpu(
    const Tensor& student, const std::optional<Tensor>& keys, const Tensor& teacher,
    const std::optional<Tensor>& teacher_keys, const std::optional<Tensor>& mask,
    double student_scale, double teacher_scale, bool cosine, bool self_pairs, bool gradients,
    bool of_keys) {
  const Settings settings{student_scale, teacher_scale, cosine, self_pairs, gradients, of_keys};
  check_rows(student, keys, teacher, teacher_keys, mask, settings);
  const int64_t batch = student.size(0);
  const Counted counted(mask, batch, student.size(1));
  const Counted all(std::nullopt, batch, keys ? keys->size(1) : 0);
  Results results{empty_for(student, {}), gradient_of(student, gradients, mask.has_value()),
                  gradient_of(keys ? *keys : student, of_keys, false)};
  for_real_type(kOp, student, [&]<class In>(In) {
    Side<In> s(student, keys, counted, all, student_scale);
    Side<In> t(teacher, teacher_keys, counted, all, teacher_scale);
    for (Side<In>* side : {&s, &t}) side->measure(batch, cosine ? Norm::unit : Norm::none);
    const bool large = std::max(s.largest_logit(), t.largest_logit()) > kLargestLogit;
    if (large)
      compute<In, double>(s, t, batch, counted.total(), settings, results);
    else
      compute<In, In>(s, t, batch, counted.total(), settings, results);
  });
  return {results.loss, results.g_student, results.g_keys};
}

}  // namespace
}  // namespace kdops::similarity_kl

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("similarity_kl", TORCH_BOX(&kdops::similarity_kl::similarity_kl_cpu));
}
