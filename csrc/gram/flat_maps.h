// Maps (B, C, *S) as the kernels of the gram room read them, (B, C, L), for the glue on every
// device. By torch's C functions: a view made by an operator costs more than the rest of a small
// call, and autograd would record it.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <vector>

#include "common/torch/check.h"
#include "common/torch/tensors.h"

namespace kdops::gram {

// The stride between neighbouring positions if all positions lie at one stride, else nothing.
inline std::optional<int64_t> position_stride(const Tensor& maps) {
  std::optional<int64_t> innermost;
  if (maps.numel() == 0) return 1;
  int64_t expected = 0;  // stride of the next dimension outwards
  for (int64_t i = maps.dim() - 1; i >= 2; --i) {
    if (maps.size(i) == 1) continue;
    if (!innermost) innermost = expected = maps.stride(i);
    if (maps.stride(i) != expected) return std::nullopt;
    expected *= maps.size(i);
  }
  return innermost.value_or(1);
}

// A view where the positions lie at one stride (contiguous and channels_last maps do), else a copy.
inline Tensor flat_maps(const char* op, const char* name, const Tensor& maps) {
  STD_TORCH_CHECK(maps.dim() >= 3, op, ": expected ", name,
                  " with 3 dimensions or more, got shape ", shape_of(maps));
  if (maps.dim() == 3) return maps;
  const std::optional<int64_t> step = position_stride(maps);
  if (!step) return flat_maps(op, name, torch::stable::contiguous(maps));
  int64_t length = 1;
  for (int64_t i = 2; i < maps.dim(); ++i) length *= maps.size(i);
  const int64_t sizes[] = {maps.size(0), maps.size(1), length};
  const int64_t strides[] = {maps.stride(0), maps.stride(1), *step};
  AtenTensorHandle view;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch__reinterpret_tensor(maps.get(), 3, sizes, strides, 0, &view));
  return Tensor(view);
}

// Whether the channels of a position lie side by side, and the positions one after the other: tokens
// (B, L, C) seen as maps, channels_last maps. kdops/ops/gram/registration.py says the same.
inline bool channels_innermost(const Tensor& maps) {
  int64_t expected = maps.size(1);
  if (expected < 2 || maps.stride(1) != 1) return false;
  for (int64_t i = maps.dim() - 1; i >= 2; --i) {
    if (maps.size(i) == 1) continue;
    if (maps.stride(i) != expected) return false;
    expected *= maps.size(i);
  }
  return expected > maps.size(1);  // one position lies both ways
}

// Uninitialised, of the sizes of maps and with the channels innermost if theirs are, else
// contiguous: autograd hands a cotangent that lies as its tensor on, and copies others.
inline Tensor cotangent_for(const Tensor& like, const Tensor& maps) {
  const Tensor made = empty_for(like, maps.sizes());
  if (!channels_innermost(maps)) return made;
  std::vector<int64_t> strides(maps.dim(), 1);
  int64_t expected = maps.size(1);
  for (int64_t i = maps.dim() - 1; i >= 2; --i) {
    strides[i] = expected;
    expected *= maps.size(i);
  }
  strides[0] = expected;
  AtenTensorHandle view;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(
      made.get(), maps.dim(), maps.sizes().data(), strides.data(), 0, &view));
  return Tensor(view);
}

// One by a size, which for a map without positions counts as one.
inline double inverse_of(int64_t size) { return 1.0 / static_cast<double>(size > 0 ? size : 1); }

// x (B, C1, L) and y (B, C2, L) of one dtype and device.
inline void check_maps(const char* op, const Tensor& x, const Tensor& y) {
  check_sizes(op, "y", y, x, {x.size(0), kAnySize, x.size(2)});
}

}  // namespace kdops::gram
