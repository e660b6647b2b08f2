// From the dtype of a tensor to a C++ type: body is called with a value of that type. Callers: the
// glue (*_cpu.cpp, *_cuda.cu) of every room.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

namespace kdops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class T>
T* pointer(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

// Whether x is of double; float is the only other type that is computed in.
bool is_double(const char* op, const Tensor& x);

template <class Body>
auto for_real_type(const char* op, const Tensor& x, const Body& body) {
  return is_double(op, x) ? body(double{}) : body(float{});
}

[[noreturn]] void refuse_storage_type(const char* op);

// The types that are read and written; the half types are the caller's (common/simd/half.h, or the
// device's own).
template <class Fp16, class Bf16, class Body>
void for_storage_type(const char* op, const Tensor& x, const Body& body) {
  const ScalarType dtype = x.scalar_type();
  if (dtype == ScalarType::Float) return body(float{});
  if (dtype == ScalarType::Double) return body(double{});
  if (dtype == ScalarType::Half) return body(Fp16{});
  if (dtype == ScalarType::BFloat16) return body(Bf16{});
  refuse_storage_type(op);
}

}  // namespace kdops
