// svd_rbf_loss's kernels on the simulator, launched exactly as svd_rbf_cuda.cu launches them.
#include <numbers>

#include "rbf/svd_rbf_kernels.cuh"
#include "sim_module.h"

namespace {

using namespace kdops::rbf::gpu;
using namespace kdops::gpu;
using Strides = std::array<int64_t, 3>;  // sample, row, component

// loss () and gradients (B, D, k), written in place; gradients None: only the loss.
void svd_rbf(const std::array<py::array, 4>& inputs, const std::array<Strides, 4>& strides,
             int64_t batch, int front, int back, int components, double beta, double scale,
             const py::array& loss, const py::object& gradient_front,
             const py::object& gradient_back) {
  for_storage_type(loss, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (std::is_same_v<T, Accum<T>>) {
      const auto input = [&](size_t i) {
        return SvdRbfInput<T>{data_of<T>(inputs[i]), strides[i][0], strides[i][1], strides[i][2]};
      };
      const int64_t items = batch * components;
      std::vector<double> losses(static_cast<size_t>(items),
                                 std::numeric_limits<double>::quiet_NaN());
      SvdRbfLaunch<T> launch{};
      launch.student_front = input(0), launch.student_back = input(1);
      launch.teacher_front = input(2), launch.teacher_back = input(3);
      launch.front = front, launch.back = back, launch.components = components;
      launch.root = static_cast<T>(std::sqrt(std::numbers::log2e / beta));
      launch.factor = static_cast<T>(-4 * scale * std::sqrt(std::numbers::ln2 / beta));
      launch.unit = std::sqrt(2 / beta), launch.low_rank_factor = 2 * launch.unit * scale;
      launch.reach = svd_rbf_reach<T>(front, back);
      launch.gradients = !gradient_front.is_none();
      launch.losses = losses.data();
      launch.gradient_front = data_of<T>(gradient_front);
      launch.gradient_back = data_of<T>(gradient_back);
      if (items > 0)
        for_svd_rbf_fronts(launch, [&](auto fronts) {
          cusim::launch(static_cast<unsigned>(items), kSvdRbfThreads,
                        static_cast<size_t>(svd_rbf_bytes(launch)),
                        [&] { svd_rbf_kernel<T, decltype(fronts)::value>(launch); });
        });
      cusim::launch(1, kSvdRbfThreads, 0,
                    [&] { svd_rbf_sum_kernel<T>(losses.data(), items, scale, data_of<T>(loss)); });
    }
  });
}

const SimRegistration registration([](py::module_& m) { m.def("svd_rbf", &svd_rbf); });

}  // namespace
