// From the dtype of a tensor to a C++ type: body is called with a value of that type. Callers: the
// glue (*_cpu.cpp, *_cuda.cu) of every room.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace kdops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class T>
T* pointer(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

// The types that are computed in.
template <class Body>
auto for_real_type(const char* op, const Tensor& x, const Body& body) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, op,
                  ": expected float32 or float64");
  return dtype == ScalarType::Float ? body(float{}) : body(double{});
}

// The types that are read and written; the half types are the caller's (common/simd/half.h, or the
// device's own).
template <class Fp16, class Bf16, class Body>
void for_storage_type(const char* op, const Tensor& x, const Body& body) {
  const ScalarType dtype = x.scalar_type();
  if (dtype == ScalarType::Float) return body(float{});
  if (dtype == ScalarType::Double) return body(double{});
  if (dtype == ScalarType::Half) return body(Fp16{});
  if (dtype == ScalarType::BFloat16) return body(Bf16{});
  STD_TORCH_CHECK(false, op, ": expected float64, float32, float16 or bfloat16");
}

}  // namespace kdops
