// svd_rbf_loss on the CPU: per item, the low-rank form where it is exact and cheaper, else the
// pairs.
#include "rbf/svd_rbf_simd.h"

#include <numbers>

#include "common/simd/scratch.h"
#include "rbf/svd_rbf_direct.h"
#include "rbf/svd_rbf_low_rank.h"

namespace kdops::rbf::KDOPS_ISA {
namespace {

// One item's scratch: both sides, and their features when the low-rank form serves.
template <class T>
struct Item {
  Side<T>&front, &back;
  Features &front_features, &back_features;
};

// The rank that is exact to rounding and cheaper than going through the pairs, or 0.
template <class T>
int choose_rank(const Side<T>& front, const Side<T>& back, T centre, double unit, bool gradients) {
  if (!std::isfinite(centre)) return 0;
  const double front_reach = unit * static_cast<double>(front.reach(centre));
  const double back_reach = unit * static_cast<double>(back.reach(centre));
  constexpr double kFarthest = 20;  // exp(-20^2 / 2) is far from underflow
  if (!(front_reach < kFarthest && back_reach < kFarthest)) return 0;
  const double tolerance = 2 * static_cast<double>(std::numeric_limits<T>::epsilon());
  const int rank = rank_for(front_reach * back_reach, tolerance);
  // Nanoseconds per value (in double) and per pair, measured with AVX-512; their ratio matters.
  const double per_value = gradients ? 8 + 0.16 * rank * rank : 5 + 0.08 * rank * rank;
  const double per_pair = sizeof(T) == 4 ? 0.45 : 1.17;
  const double low_rank = per_value * static_cast<double>(front.padded() + back.padded());
  const double direct = per_pair * static_cast<double>(front.padded() * back.count);
  return low_rank < direct ? rank : 0;
}

// The low-rank form; false where its own error estimate does not certify the result.
template <class T>
bool svd_rbf_low_rank(Item<T>& item, int rank, double centre, double unit, bool gradients,
                      double& loss) {
  Features &front = item.front_features, &back = item.back_features;
  front.rank = back.rank = rank;
  make_features(item.front, centre, unit, front);
  make_features(item.back, centre, unit, back);
  make_gram(front);
  make_gram(back);
  double magnitude;
  loss = loss_from_grams(back, front, magnitude);
  // Terms may cancel (a student that is the teacher shifted): below this the digits are gone.
  constexpr double kCancelled = sizeof(T) == 4 ? 1e-7 : 1e-2;
  if (!(loss >= kCancelled * magnitude)) return false;
  if (gradients) {
    low_rank_gradient(front, back, item.front.gradient);
    low_rank_gradient(back, front, item.back.gradient);
  }
  return true;
}

}  // namespace

template <class T>
void svd_rbf_items(const SvdRbfProblem<T>& problem, int64_t begin, int64_t end) {
  const auto& q = problem;
  Scratch<T> sides(Side<T>::scratch(q.front) + Side<T>::scratch(q.back));
  Side<T> front(sides.get(), q.front), back(sides.get() + Side<T>::scratch(q.front), q.back);
  Scratch<double> rows(Features::scratch(front.padded()) + Features::scratch(back.padded()));
  Scratch<Features> features(2);
  Item<T> item{front, back, features[0], features[1]};
  item.front_features.attach(rows.get(), front.count, front.padded());
  item.back_features.attach(rows.get() + Features::scratch(front.padded()), back.count,
                            back.padded());
  const double unit = std::sqrt(2 / q.beta);
  const double direct_unit = std::sqrt(q.beta * std::numbers::ln2);
  const int64_t values = std::max<int64_t>(q.front + q.back, 1);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t sample = i / q.components, component = i % q.components;
    front.load(q.student_front, q.teacher_front, sample, component);
    back.load(q.student_back, q.teacher_back, sample, component);
    const T centre = (front.teacher_sum() + back.teacher_sum()) / static_cast<T>(values);
    const int rank = choose_rank(front, back, centre, unit, q.gradients);
    // d loss / d value is 2 unit * (low rank) or -4 direct_unit / beta * (direct)
    double factor = 2 * unit * q.scale;
    if (rank == 0 || !svd_rbf_low_rank(item, rank, static_cast<double>(centre), unit, q.gradients,
                                       q.losses[i])) {
      q.losses[i] = svd_rbf_direct(front, back, direct_unit);
      factor = -4 * q.scale * direct_unit / q.beta;
    }
    if (!q.gradients) continue;
    const T scale = static_cast<T>(factor);
    front.store_gradient(scale, q.gradient_front, sample, component, q.components);
    back.store_gradient(scale, q.gradient_back, sample, component, q.components);
  }
}

KDOPS_COMPILE_REAL(svd_rbf_items)

}  // namespace kdops::rbf::KDOPS_ISA
