#include "common/torch/dispatch.h"

#include <torch/headeronly/util/Exception.h>

namespace kdops {

bool is_double(const char* op, const Tensor& x) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, op,
                  ": expected float32 or float64");
  return dtype == ScalarType::Double;
}

void refuse_storage_type(const char* op) {
  STD_TORCH_CHECK(false, op, ": expected float64, float32, float16 or bfloat16");
}

}  // namespace kdops
