// Schema of the token_gram room.
//   gram_anchoring_loss  (loss, gradient of student) of sum_b w_b |G_S - G_T|^2 over the images b,
//                        G = X XT of the unit tokens; student (B, N, D_S), teacher (B, N, D_T),
//                        weights (B,) or absent (1 / (B N^2)); negatives: 0 keeps them, 1 counts
//                        those of both as zero, 2 those of the teacher
//   cka_loss             (loss, gradient of student), the mean over b of
//                        1 - <K_S, K_T> / (|K_S| |K_T|), K = X XT of the rows, minus their mean
//                        where centred; student (B, N, D_S), teacher (B, N, D_T), inside (B, N), the
//                        rows that count, or absent: all
// Strides of inputs are free. The gradient is empty when `gradients` is false. cka_loss: cka_cpu.cpp.
//
// CPU glue of gram_anchoring_loss: image after image with its steps shared among the threads, or,
// where images are small, an image a thread. Work memory is that of an image (a thread), never
// N x N; what a step adds up is added in order: results do not depend on the number of threads.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/parallel.h"
#include "common/torch/tensors.h"
#include "token_gram/anchoring_simd.h"
#include "token_gram/image.h"

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def(
      "gram_anchoring_loss(Tensor student, Tensor teacher, Tensor? weights, int negatives, "
      "bool gradients) -> (Tensor, Tensor)");
  m.def(
      "cka_loss(Tensor student, Tensor teacher, Tensor? inside, bool centered, bool gradients) "
      "-> (Tensor, Tensor)");
}

namespace kdops::token_gram {
namespace {

template <class T>
struct Batch {
  const Tensor &student, &teacher;
  const T* weights;  // one per image, or null
  Negatives negatives;
  Tensor gradient;
  bool gradients;

  Anchoring<T> image(int64_t b) const {
    Anchoring<T> p{};
    p.student = tokens_of<T>(student, b);
    p.teacher = tokens_of<T>(teacher, b);
    p.tokens = student.size(1);
    p.negatives = negatives;
    p.gradient = gradients ? pointer<T>(gradient) + b * p.tokens * p.student.width : nullptr;
    p.factor = static_cast<T>(4 * weight(b));
    return p;
  }
  double weight(int64_t b) const {
    if (weights != nullptr) return static_cast<double>(weights[b]);
    const double n = static_cast<double>(student.size(1));
    return 1 / (static_cast<double>(student.size(0)) * n * n);
  }
};

template <class T>
double loss_of(const Batch<T>& batch) {
  const int64_t images = batch.student.size(0);
  const ImageSizes sizes{batch.student.size(1), batch.student.size(2), batch.teacher.size(2)};
  if (images == 0 || sizes.tokens == 0) return 0;
  const bool features = batch.negatives == Negatives::keep && sizes.student > 0 &&
                        sizes.teacher > 0 && sizes.by_features() < sizes.by_tiles();
  const double flops = 2 * (features ? sizes.by_features() : sizes.by_tiles());
  std::vector<double> losses(static_cast<size_t>(images));
  over_images(images, flops, [&](int64_t begin, int64_t end, const auto& run) {
    Work<T> work(sizes, features, batch.gradients);
    for (int64_t b = begin; b < end; ++b)
      losses[b] = batch.weight(b) * sum_of_image(batch.image(b), work, run);
  });
  return ordered_sum(losses);
}

std::tuple<Tensor, Tensor> gram_anchoring_loss_cpu(const Tensor& student, const Tensor& teacher,
                                                   const std::optional<Tensor>& weights,
                                                   int64_t negatives, bool gradients) {
  const char* op = "gram_anchoring_loss";
  check_tokens(op, student, teacher);
  if (weights) check_sizes(op, "weights", *weights, student, {student.size(0)});
  STD_TORCH_CHECK(negatives >= 0 && negatives <= 2, op, ": expected negatives 0, 1 or 2, got ",
                  negatives);
  Tensor loss = empty_for(student, {});
  Tensor gradient = gradient_for(student, gradients);
  const std::optional<Tensor> dense = contiguous_of(weights);
  for_real_type(op, student, [&]<class T>(T) {
    const Batch<T> batch{.student = student,
                         .teacher = teacher,
                         .weights = pointer_or_null<T>(dense),
                         .negatives = static_cast<Negatives>(negatives),
                         .gradient = gradient,
                         .gradients = gradients};
    *pointer<T>(loss) = static_cast<T>(loss_of(batch));
  });
  return {loss, gradient};
}

}  // namespace
}  // namespace kdops::token_gram

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("gram_anchoring_loss", TORCH_BOX(&kdops::token_gram::gram_anchoring_loss_cpu));
}
