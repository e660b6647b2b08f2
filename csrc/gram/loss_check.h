// What the Gram losses accept on every device, and the options of gram_loss. Callers: loss_cpu.cpp,
// loss_cuda.cu.
#pragma once

#include <optional>

#include "common/torch/check.h"
#include "gram/flat_maps.h"

namespace kdops::gram {

enum class GramVariant { paper, mse, columns };  // as gram.cpp numbers them

inline GramVariant variant_of(const char* op, int64_t number) {
  STD_TORCH_CHECK(number >= 0 && number <= 2, op, ": expected variant 0, 1 or 2, got ", number);
  return static_cast<GramVariant>(number);
}

struct LossOptions {
  double scale_s, scale_t, coefficient;
  bool columns, positions, gradients, symmetric;
};

// Maps (B, C, L); x2 and y2 are x1 and y1 in the symmetric case.
struct LossMaps {
  Tensor x1, x2, y1, y2;
};

inline LossMaps loss_maps(const char* op, const Tensor& x1_maps,
                          const std::optional<Tensor>& x2_maps, const Tensor& y1_maps,
                          const std::optional<Tensor>& y2_maps, GramVariant variant,
                          bool positions) {
  STD_TORCH_CHECK(x2_maps.has_value() == y2_maps.has_value(), op, ": x2 and y2 go together");
  const Tensor x1 = flat_maps(op, "x1", x1_maps), y1 = flat_maps(op, "y1", y1_maps);
  const Tensor x2 = x2_maps ? flat_maps(op, "x2", *x2_maps) : x1;
  const Tensor y2 = y2_maps ? flat_maps(op, "y2", *y2_maps) : y1;
  for (const Tensor* t : {&x1, &x2, &y1, &y2}) {
    check_like(op, "every map", *t, x1);
    check_size(op, "every map", *t, 0, x1.size(0));
  }
  check_size(op, "y1", y1, 1, x1.size(1));
  check_size(op, "y2", y2, 1, x2.size(1));
  check_size(op, "x2", x2, 2, x1.size(2));
  check_size(op, "y2", y2, 2, y1.size(2));
  STD_TORCH_CHECK(!positions || (variant != GramVariant::columns && x1.size(2) == y1.size(2)), op,
                  ": the route by positions takes squares and equal lengths");
  return {x1, x2, y1, y2};
}

inline LossOptions gram_loss_options(const LossMaps& maps, GramVariant variant, bool symmetric,
                                     bool positions, bool gradients) {
  const double mean = inverse_of(maps.x1.size(0));
  const double entries = inverse_of(maps.x1.size(1)) * inverse_of(maps.x2.size(1));
  double coefficient = mean;
  if (variant == GramVariant::paper) coefficient = mean / 2;
  if (variant == GramVariant::mse) coefficient = mean * entries;
  return {.scale_s = inverse_of(maps.x1.size(2)),
          .scale_t = inverse_of(maps.y1.size(2)),
          .coefficient = coefficient,
          .columns = variant == GramVariant::columns,
          .positions = positions,
          .gradients = gradients,
          .symmetric = symmetric};
}

struct NstMaps {
  Tensor student, teacher;  // (B, C, L)
};

// by_channels: the route of nst_loss through channels x channels products, which is the
// route by positions of a Gram loss of the maps read the other way round.
inline NstMaps nst_maps(const char* op, const Tensor& student_maps, const Tensor& teacher_maps,
                        bool by_channels) {
  const Tensor student = flat_maps(op, "student", student_maps);
  const Tensor teacher = flat_maps(op, "teacher", teacher_maps);
  check_sizes(op, "teacher", teacher, student, {student.size(0), kAnySize, student.size(2)});
  if (by_channels) check_size(op, "teacher", teacher, 1, student.size(1));
  return {student, teacher};
}

}  // namespace kdops::gram
