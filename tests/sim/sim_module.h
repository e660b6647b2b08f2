// How a room shows its kernels to pytest: tests/sim/sim_<op>.cpp includes this and its
// <op>_kernels.cuh, and holds one
//   static const SimRegistration registration([](py::module_& m) { m.def("gram", &gram); });
// sim_build.py compiles all tests/sim/sim_*.cpp into one module. Arrays are numpy's: C-contiguous
// unless a room says otherwise, outputs are written in place. Half is float16; BFloat16 has no
// numpy type and travels as uint16.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <vector>

#include "common/gpu/lane.cuh"

namespace py = pybind11;

struct SimRegistration {
  using Function = void (*)(py::module_&);
  static std::vector<Function>& all() {
    static std::vector<Function> functions;
    return functions;
  }
  explicit SimRegistration(Function function) { all().push_back(function); }
};

// The storage of an array as T (see above for the half types); null for None.
template <class T>
T* data_of(const py::object& object) {
  if (object.is_none()) return nullptr;
  const auto array = py::cast<py::array>(object);
  if (array.itemsize() != sizeof(T)) throw std::invalid_argument("array of another element size");
  return const_cast<T*>(static_cast<const T*>(array.data()));
}

// Whether the matrices of a [count, m, n] lie column by column; any other order is refused.
inline bool is_column_major(const py::array& A) {
  const py::ssize_t size = A.itemsize(), m = A.shape(1), n = A.shape(2);
  const auto lies = [&](py::ssize_t row, py::ssize_t column) {
    return (m == 1 || A.strides(1) == row * size) && (n == 1 || A.strides(2) == column * size);
  };
  const bool one_by_one = A.shape(0) == 1 || A.strides(0) == m * n * size;
  if (one_by_one && lies(n, 1)) return false;
  if (one_by_one && lies(1, m)) return true;
  throw std::invalid_argument("matrices that lie neither row by row nor column by column");
}

// body(T{}) with the number type of an array that is computed in: float64 or float32.
template <class Body>
void for_real(const py::array& array, const Body& body) {
  if (array.itemsize() == 4) return body(float{});
  body(double{});
}

// body(T{}) with the kernels' storage type for the array's dtype.
template <class Body>
void for_storage_type(const py::array& array, const Body& body) {
  using kdops::gpu::BFloat16, kdops::gpu::Half;
  const char kind = array.dtype().kind();
  const auto size = array.itemsize();
  if (kind == 'f' && size == 4) return body(float{});
  if (kind == 'f' && size == 8) return body(double{});
  if (kind == 'f' && size == 2) return body(Half{});
  if (kind == 'u' && size == 2) return body(BFloat16{});
  throw std::invalid_argument("expected float64, float32, float16, or uint16 for bfloat16");
}
