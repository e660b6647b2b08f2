// The top-k SVD kernels for test_sim_svd_topk.py, launched as topk_cuda.cu launches them.
#include "sim_module.h"
#include "svd/topk/topk_launch.h"

namespace {

using namespace kdops::svd::gpu;

// body(plan, workspace) in every thread of a block per matrix.
template <class T, class Plan, class Body>
void launch(int64_t count, const TopkLaunch<Plan>& geometry, const Body& body) {
  std::vector<T> workspace(geometry.workspace * count + 1, kNaN<T>);
  cusim::launch(static_cast<unsigned>(count), kTopkThreads, geometry.shared_bytes,
                [&] { body(geometry.plan, workspace.data()); });
}

// The kernels for a small side above 128.
template <class T>
void run_large(const TopkArguments<T>& args) {
  std::vector<T> parts(kScanParts * args.count, kNaN<T>);
  const LargeLaunch geometry = plan_large_forward<T>(args.m, args.n, args.k);
  const LargeLaunch krylov = plan_large_krylov<T>(args.m, args.n, args.k);
  std::vector<T> workspace(geometry.workspace * args.count, kNaN<T>);
  std::vector<T> bases(krylov.workspace * args.count, kNaN<T>);
  const auto grid = [&](int64_t blocks) { return static_cast<unsigned>(blocks * args.count); };
  cusim::launch(grid(kScanParts), kTopkThreads, 0,
                [&] { large_scan_kernel<T>(args.A, args.m * args.n, parts.data()); });
  cusim::launch(grid(large_gram_tiles(args.p())), GramShape<T>::kThreads, 0,
                [&] { large_gram_kernel<T>(args, parts.data()); });
  cusim::launch(grid(1), kTopkThreads, krylov.shared_bytes,
                [&] { large_krylov_kernel<T>(args, parts.data(), bases.data()); });
  cusim::launch(grid(1), kTopkThreads, geometry.shared_bytes,
                [&] { large_topk_kernel<T>(args, parts.data(), workspace.data()); });
}

template <class T>
void run_large_backward(const TopkGradientArguments<T>& args) {
  const LargeLaunch geometry = plan_large_backward<T>(args.m, args.n, args.k);
  std::vector<T> workspace(geometry.workspace * args.count, kNaN<T>);
  cusim::launch(static_cast<unsigned>(args.count), kTopkThreads, geometry.shared_bytes,
                [&] { large_backward_kernel<T>(args, workspace.data()); });
}

// A [count, m, n] by rows or by columns, U [count, m, k] or None, S [count, k], Vh [count, k, n],
// saved [count, topk_saved_rows(p, k), p].
template <class T>
void run_topk(const py::array& A, const py::object& U, const py::array& S, const py::array& Vh,
              const py::array& saved, bool canonical, size_t shared_limit) {
  TopkArguments<T> args{{A.shape(0), A.shape(1), A.shape(2), is_column_major(A)}};
  args.A = data_of<T>(A), args.U = data_of<T>(U);
  args.S = data_of<T>(S), args.Vh = data_of<T>(Vh), args.saved = data_of<T>(saved);
  args.k = static_cast<int>(S.shape(1)), args.canonical = canonical;
  if (args.p() > kdops::svd::kLargestSmallSide) return run_large(args);
  launch<T>(args.count, plan_topk_forward<T>(args.m, args.n, args.k, shared_limit),
            [&](auto plan, T* workspace) { svd_topk_kernel<T>(args, plan, workspace); });
  launch<T>(args.count, plan_topk_dense<T>(args.m, args.n, args.k, shared_limit),
            [&](auto plan, T* workspace) { svd_topk_dense_kernel<T>(args, plan, workspace); });
}

void topk(const py::array& A, const py::object& U, const py::array& S, const py::array& Vh,
          const py::array& saved, bool canonical, size_t shared_limit) {
  if (A.itemsize() == 4) return run_topk<float>(A, U, S, Vh, saved, canonical, shared_limit);
  run_topk<double>(A, U, S, Vh, saved, canonical, shared_limit);
}

// Cotangents may be None, U too; gA, in the order of A, is written.
template <class T>
void run_backward(const py::object& gU, const py::object& gS, const py::object& gVh,
                  const py::array& A, const py::object& U, const py::array& S, const py::array& Vh,
                  const py::array& saved, const py::array& gA, bool lorentz, size_t shared_limit) {
  if (is_column_major(gA) != is_column_major(A)) throw std::invalid_argument("gA lies unlike A");
  TopkGradientArguments<T> args{{A.shape(0), A.shape(1), A.shape(2), is_column_major(A)}};
  args.A = data_of<T>(A), args.gA = data_of<T>(gA);
  args.U = data_of<T>(U), args.S = data_of<T>(S), args.Vh = data_of<T>(Vh);
  args.saved = data_of<T>(saved);
  args.gU = data_of<T>(gU), args.gS = data_of<T>(gS), args.gVh = data_of<T>(gVh);
  args.k = static_cast<int>(S.shape(1)), args.lorentz = lorentz;
  if (args.p() > kdops::svd::kLargestSmallSide) return run_large_backward(args);
  launch<T>(args.count, plan_topk_backward<T>(args.m, args.n, args.k, shared_limit),
            [&](auto plan, T* workspace) { svd_topk_backward_kernel<T>(args, plan, workspace); });
}

void topk_backward(const py::object& gU, const py::object& gS, const py::object& gVh,
                   const py::array& A, const py::object& U, const py::array& S, const py::array& Vh,
                   const py::array& saved, const py::array& gA, bool lorentz, size_t shared_limit) {
  const auto run = A.itemsize() == 4 ? &run_backward<float> : &run_backward<double>;
  run(gU, gS, gVh, A, U, S, Vh, saved, gA, lorentz, shared_limit);
}

const SimRegistration registration([](py::module_& m) {
  m.def("svd_topk", &topk);
  m.def("svd_topk_backward", &topk_backward);
});

}  // namespace
