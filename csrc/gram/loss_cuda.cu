// gram_loss and nst_loss on CUDA: stable tensors to operands, unit rows of nst_loss before and
// after its Gram loss (loss_launch.cuh). No host synchronisation.
#include "common/torch/stream.h"
// stream.h first: it declares torch's CUDA shims weak
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "gram/loss_check.h"
#include "gram/loss_launch.cuh"

namespace kdops::gram {
namespace {

std::tuple<Tensor, Tensor, Tensor> gram_loss_cuda(const Tensor& x1_maps,
                                                  const std::optional<Tensor>& x2_maps,
                                                  const Tensor& y1_maps,
                                                  const std::optional<Tensor>& y2_maps,
                                                  int64_t variant, bool positions, bool gradients) {
  const char* op = "gram_loss";
  const auto kind = variant_of(op, variant);
  const LossMaps maps = loss_maps(op, x1_maps, x2_maps, y1_maps, y2_maps, kind, positions);
  const LossOptions options = gram_loss_options(maps, kind, !x2_maps, positions, gradients);
  for (const Tensor* t : {&maps.x1, &maps.x2, &maps.y1, &maps.y2})
    check_extent(op, "every map", *t);
  const int64_t rows = maps.x1.size(1), cols = maps.x2.size(1);
  const OnDevice device(x1_maps);
  const bool second = gradients && !options.symmetric;
  Tensor loss = empty_for(x1_maps, {});
  Tensor g1 = gradient_for(x1_maps, gradients);
  Tensor g2 = second ? empty_for(x1_maps, x2_maps->sizes()) : empty_for(x1_maps, {0});
  for_real_type(op, x1_maps, [&](auto real) {
    using T = decltype(real);
    const LossOperands<T> operands{.x1 = operand<T>(maps.x1),
                                   .x2 = operand<T>(maps.x2),
                                   .y1 = operand<T>(maps.y1),
                                   .y2 = operand<T>(maps.y2),
                                   .items = maps.x1.size(0),
                                   .rows = rows,
                                   .cols = cols,
                                   .student_length = maps.x1.size(2),
                                   .teacher_length = maps.y1.size(2),
                                   .turned = false};
    LossLaunch<T>(op, device, x1_maps, operands, options).run(loss, g1, g2);
  });
  return {loss, g1, g2};
}

// Unit rows (B, C, L) of one side and the inverse norms (B, C).
template <class T>
struct UnitRows {
  Tensor rows, inverse;

  UnitRows(const OnDevice& device, const char* op, const Tensor& x)
      : rows(empty_for(x, {x.size(0), x.size(1), x.size(2)})),
        inverse(empty_for(x, {x.size(0), x.size(1)})) {
    if (inverse.numel() == 0) return;
    gpu::unit_rows_kernel<T><<<grid_of(op, blocks()), gpu::kPositionThreads, 0, device.stream()>>>(
        operand<T>(x), inverse.numel(), static_cast<int>(x.size(1)), static_cast<int>(x.size(2)),
        pointer<T>(rows), pointer<T>(inverse));
    check_launch(op);
  }

  void pull_back(const OnDevice& device, const char* op, const Tensor& gradient) const {
    if (gradient.numel() == 0) return;
    gpu::unit_rows_back_kernel<T>
        <<<grid_of(op, blocks()), gpu::kPositionThreads, 0, device.stream()>>>(
            pointer<T>(rows), pointer<T>(inverse), inverse.numel(), static_cast<int>(rows.size(2)),
            pointer<T>(gradient));
    check_launch(op);
  }

 private:
  int64_t blocks() const {
    constexpr int kRows = gpu::kPositionThreads / kWarp;
    return (inverse.numel() + kRows - 1) / kRows;
  }
};

// The Gram loss of the unit rows read the other way round: D is positions x positions.
template <class T>
void nst_loss_of(const OnDevice& device, const char* op, const Tensor& student,
                 const Tensor& teacher, const LossOptions& options, const Tensor& loss,
                 const Tensor& gradient) {
  const UnitRows<T> s(device, op, student), t(device, op, teacher);
  const GramOperand<T> x = operand<T>(s.rows, true), y = operand<T>(t.rows, true);
  const int64_t length = student.size(2);
  const LossOperands<T> operands{.x1 = x,
                                 .x2 = x,
                                 .y1 = y,
                                 .y2 = y,
                                 .items = student.size(0),
                                 .rows = length,
                                 .cols = length,
                                 .student_length = student.size(1),
                                 .teacher_length = teacher.size(1),
                                 .turned = true};
  LossLaunch<T>(op, device, student, operands, options).run(loss, gradient, gradient);
  if (options.gradients) s.pull_back(device, op, gradient);
}

std::tuple<Tensor, Tensor> nst_loss_cuda(const Tensor& student_maps, const Tensor& teacher_maps,
                                         bool by_channels, bool gradients) {
  const char* op = "nst_loss";
  const NstMaps maps = nst_maps(op, student_maps, teacher_maps, by_channels);
  const Tensor &student = maps.student, &teacher = maps.teacher;
  check_extent(op, "student", student);
  check_extent(op, "teacher", teacher);
  const OnDevice device(student);
  const LossOptions options{.scale_s = inverse_of(student.size(1)),
                            .scale_t = inverse_of(teacher.size(1)),
                            .coefficient = inverse_of(student.size(0)),
                            .columns = false,
                            .positions = by_channels,
                            .gradients = gradients,
                            .symmetric = true};
  Tensor loss = empty_for(student, {});
  Tensor gradient = gradients ? empty_for(student, student_maps.sizes()) : empty_for(student, {0});
  for_real_type(op, student, [&](auto real) {
    nst_loss_of<decltype(real)>(device, op, student, teacher, options, loss, gradient);
  });
  return {loss, gradient};
}

}  // namespace
}  // namespace kdops::gram

STABLE_TORCH_LIBRARY_IMPL(kdops, CUDA, m) {
  m.impl("gram_loss", TORCH_BOX(&kdops::gram::gram_loss_cuda));
  m.impl("nst_loss", TORCH_BOX(&kdops::gram::nst_loss_cuda));
}
