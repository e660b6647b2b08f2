#include "common/torch/check.h"

#include <sstream>

namespace kdops {

std::string shape_of(const Tensor& tensor) {
  std::ostringstream text;
  text << "[";
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << "]";
  return text.str();
}

void check_dim(const char* op, const char* name, const Tensor& tensor, int64_t dim) {
  STD_TORCH_CHECK(tensor.dim() == dim, op, ": expected ", name, " with ", dim,
                  " dimensions, got shape ", shape_of(tensor));
}

void check_size(const char* op, const char* name, const Tensor& tensor, int64_t axis,
                int64_t expected) {
  STD_TORCH_CHECK(tensor.size(axis) == expected, op, ": expected ", name, " of size ", expected,
                  " in dimension ", axis, ", got shape ", shape_of(tensor));
}

void check_like(const char* op, const char* name, const Tensor& tensor, const Tensor& first) {
  STD_TORCH_CHECK(tensor.scalar_type() == first.scalar_type(), op, ": ", name,
                  " has another dtype than the first argument");
  STD_TORCH_CHECK(tensor.device() == first.device(), op, ": ", name,
                  " is on another device than the first argument");
}

void check_sizes(const char* op, const char* name, const Tensor& tensor, const Tensor& first,
                 torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  check_dim(op, name, tensor, static_cast<int64_t>(sizes.size()));
  check_like(op, name, tensor, first);
  int64_t axis = 0;
  for (const int64_t size : sizes) {
    if (size != kAnySize) check_size(op, name, tensor, axis, size);
    ++axis;
  }
}

void check_row_sets(const char* op, const Tensor& student, const Tensor& teacher) {
  check_dim(op, "student", student, 2);
  check_sizes(op, "teacher", teacher, student, {student.size(0), kAnySize});
}

}  // namespace kdops
