// CPU glue of the fused Gram losses: stable tensors to pointers and strides, the batch over the
// threads, the items' losses added in order.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "common/simd/scratch.h"
#include "common/torch/dispatch.h"
#include "common/torch/parallel.h"
#include "common/torch/tensors.h"
#include "gram/loss_check.h"
#include "gram/loss_simd.h"

namespace kdops::gram {
namespace {

using Losses = std::tuple<Tensor, Tensor, Tensor>;

// maps1, maps2: x1 and x2 as they were given, for their cotangents.
template <class T>
Losses gram_loss_of(const Tensor& maps1, const Tensor& maps2, const LossMaps& maps,
                    const LossOptions& o) {
  const auto& [x1, x2, y1, y2] = maps;
  const int64_t batch = x1.size(0), c1 = x1.size(1), c2 = x2.size(1), length = x1.size(2);
  const bool second = o.gradients && !o.symmetric;
  Tensor g1 = o.gradients ? cotangent_for(x1, maps1) : empty_for(x1, {0});
  Tensor g2 = second ? cotangent_for(x1, maps2) : empty_for(x1, {0});
  Scratch<T> partial(batch);
  const GramLoss<T> problem{.x1 = strided<Maps<T>>(x1),
                            .x2 = strided<Maps<T>>(x2),
                            .y1 = strided<Maps<T>>(y1),
                            .y2 = strided<Maps<T>>(y2),
                            .c1 = c1,
                            .c2 = c2,
                            .student_length = length,
                            .teacher_length = y1.size(2),
                            .scale_s = static_cast<T>(o.scale_s),
                            .scale_t = static_cast<T>(o.scale_t),
                            .coefficient = static_cast<T>(o.coefficient),
                            .columns = o.columns,
                            .positions = o.positions,
                            .symmetric = o.symmetric,
                            .loss = partial.get(),
                            .g1 = o.gradients ? pointer<T>(g1) : nullptr,
                            .g2 = second ? pointer<T>(g2) : nullptr,
                            .inner1 = channels_innermost(maps1),
                            .inner2 = channels_innermost(maps2)};
  const double flops = 8.0 * c1 * c2 * length;
  parallel_for(batch, flops, KDOPS_BEST(gram_loss<T>), problem);
  return {scalar_for<T>(x1, ordered_sum(partial.get(), batch)), g1, g2};
}

Losses gram_loss_cpu(const Tensor& x1_maps, const std::optional<Tensor>& x2_maps,
                     const Tensor& y1_maps, const std::optional<Tensor>& y2_maps, int64_t variant,
                     bool positions, bool gradients) {
  const char* op = "gram_loss";
  const auto kind = variant_of(op, variant);
  const LossMaps maps = loss_maps(op, x1_maps, x2_maps, y1_maps, y2_maps, kind, positions);
  const LossOptions options = gram_loss_options(maps, kind, !x2_maps, positions, gradients);
  const Tensor& second = x2_maps ? *x2_maps : x1_maps;
  return for_real_type(op, x1_maps,
                       [&]<class T>(T) { return gram_loss_of<T>(x1_maps, second, maps, options); });
}

// student_maps: as they were given, for their cotangent.
template <class T>
std::tuple<Tensor, Tensor> nst_loss_of(const Tensor& student_maps, const NstMaps& maps,
                                       bool by_channels, bool gradients) {
  const auto& [student, teacher] = maps;
  const int64_t batch = student.size(0), channels = student.size(1), length = student.size(2);
  Tensor gradient = gradients ? cotangent_for(student, student_maps) : empty_for(student, {0});
  Scratch<T> items(batch);
  const NstLoss<T> problem{.student = strided<Maps<T>>(student),
                           .teacher = strided<Maps<T>>(teacher),
                           .student_channels = channels,
                           .teacher_channels = teacher.size(1),
                           .length = length,
                           .coefficient = static_cast<T>(inverse_of(batch)),
                           .by_channels = by_channels,
                           .loss = items.get(),
                           .gradient = gradients ? pointer<T>(gradient) : nullptr,
                           .inner = channels_innermost(student_maps)};
  const double flops = 4.0 * channels * length * std::min(channels, length);
  parallel_for(batch, flops, KDOPS_BEST(nst_loss<T>), problem);
  return {scalar_for<T>(student, ordered_sum(items.get(), batch)), gradient};
}

std::tuple<Tensor, Tensor> nst_loss_cpu(const Tensor& student, const Tensor& teacher,
                                        bool by_channels, bool gradients) {
  const char* op = "nst_loss";
  const NstMaps maps = nst_maps(op, student, teacher, by_channels);
  return for_real_type(op, student, [&]<class T>(T) {
    return nst_loss_of<T>(student, maps, by_channels, gradients);
  });
}

}  // namespace
}  // namespace kdops::gram

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("gram_loss", TORCH_BOX(&kdops::gram::gram_loss_cpu));
  m.impl("nst_loss", TORCH_BOX(&kdops::gram::nst_loss_cpu));
}
