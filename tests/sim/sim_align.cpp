// The alignment of singular vectors for test_sim_align.py, launched as align_cuda.cu does.
// Inputs may have any strides; choice is int64.
#include "align/align_kernels.cuh"
#include "sim_module.h"

namespace {

using namespace kdops::align;

template <class T>
Vectors<T> vectors_of(const py::array& x) {
  const auto stride = [&](int axis) { return int64_t(x.strides(axis) / x.itemsize()); };
  return {data_of<T>(x), stride(0), stride(1), stride(2)};
}

// student (B, D, K'), teacher (B, D, k); aligned (B, D, k) and choice (B, k) are written.
void align_vectors(const py::array& student, const py::array& teacher, const py::array& aligned,
                   const py::array& choice) {
  for_real(student, [&]<class T>(T) {
    const Alignment<T> args{
        {student.shape(0), student.shape(1), student.shape(2), teacher.shape(2)},
        vectors_of<T>(student),
        vectors_of<T>(teacher),
        data_of<T>(aligned),
        data_of<int64_t>(choice)};
    cusim::launch(static_cast<unsigned>(args.sizes.batch), gpu::kAlignThreads, 0,
                  [&] { gpu::align_vectors_kernel<T>(args); });
  });
}

// grad (B, D, k), choice (B, k); the student's gradient (B, K', D) is written.
void align_vectors_backward(const py::array& grad, const py::array& choice,
                            const py::array& student) {
  for_real(grad, [&]<class T>(T) {
    const AlignmentGradient<T> args{{grad.shape(0), grad.shape(1), student.shape(1), grad.shape(2)},
                                    vectors_of<T>(grad),
                                    data_of<int64_t>(choice),
                                    data_of<T>(student)};
    cusim::launch(static_cast<unsigned>(args.sizes.batch), gpu::kAlignThreads, 0,
                  [&] { gpu::align_vectors_backward_kernel<T>(args); });
  });
}

const SimRegistration registration([](py::module_& m) {
  m.def("align_vectors", &align_vectors);
  m.def("align_vectors_backward", &align_vectors_backward);
});

}  // namespace
