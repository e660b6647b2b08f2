// The SVD kernels for test_sim_svd.py, launched as full_cuda.cu launches them.
#include "sim_module.h"
#include "svd/full/full_launch.h"

namespace {

using namespace kdops::svd::gpu;

template <int kLanes, class T>
void run_small(const SvdArguments<T>& args) {
  if (args.symmetric)
    eigh_small_kernel<T, kLanes>(args);
  else
    svd_small_kernel<T, kLanes>(args);
}

template <int kSide, class T>
void launch_gram(const SvdArguments<T>& args) {
  // a multiprocessor for each block, and one for all: another warp decomposes
  const int multiprocessors = args.count > 2 ? 1 : 132;
  cusim::launch(static_cast<unsigned>(args.count), kGramThreads, gram_bytes<T>(kSide),
                [&] { svd_gram_kernel<T, kSide>(args, multiprocessors); });
}
template <class T>
void run_gram(const SvdArguments<T>& args, int side) {
  if (side == 16) launch_gram<16>(args);
  if (side == 32) launch_gram<32>(args);
}

// A [count, m, n] by rows or (not for eigh) by columns; outputs are None where the call does not
// want them. shared_limit 0: the device's.
template <class T>
void run_svd(SvdArguments<T> args, bool with_long, bool block, size_t shared_limit) {
  const int lanes = block ? 0 : small_class<T>(args.m, args.n);
  if (lanes == 0) {
    const int gram = block || args.symmetric ? 0 : gram_side<T>(args.m, args.n, shared_limit);
    args.only_refused = gram > 0;
    run_gram(args, gram);
    const BlockLaunch<T> launch = plan_block<T>(args.m, args.n, with_long, shared_limit);
    std::vector<T> workspace(launch.workspace * args.count, std::numeric_limits<T>::quiet_NaN());
    cusim::launch(static_cast<unsigned>(args.count), launch.plan.threads, launch.shared_bytes, [&] {
      T* memory = workspace.empty() ? nullptr : workspace.data();
      const int side = block_side<T>(args.p());
      if (args.symmetric)
        eigh_block_kernel<T>(args, launch.plan, memory);
      else if (side == 16)
        svd_block_kernel<T, 16>(args, launch.plan, memory);
      else if (side == 32)
        svd_block_kernel<T, 32>(args, launch.plan, memory);
      else if (side == 64)
        svd_block_kernel<T, 64>(args, launch.plan, memory);
      else
        svd_block_kernel<T, 128>(args, launch.plan, memory);
    });
    return;
  }
  const auto blocks =
      static_cast<unsigned>((args.count * lanes + kSmallThreads - 1) / kSmallThreads);
  cusim::launch(blocks, kSmallThreads, 0, [&] {
    if (lanes == 16) run_small<16>(args);
    if constexpr (sizeof(T) == 4) {
      if (lanes == 8) run_small<8>(args);
      if (lanes == 32) run_small<32>(args);
    }
  });
}

template <class T>
SvdArguments<T> arguments(const py::array& A, const py::object& U, const py::object& S,
                          const py::object& Vh, bool canonical, bool symmetric) {
  SvdArguments<T> args{{A.shape(0), A.shape(1), A.shape(2), is_column_major(A)}};
  args.A = data_of<T>(A), args.U = data_of<T>(U);
  args.S = data_of<T>(S), args.Vh = data_of<T>(Vh);
  args.canonical = canonical, args.symmetric = symmetric;
  return args;
}

void svd(const py::array& A, const py::object& U, const py::object& S, const py::object& Vh,
         bool canonical, bool block, size_t shared_limit) {
  for_real(A, [&]<class T>(T) {
    const auto args = arguments<T>(A, U, S, Vh, canonical, false);
    const bool with_long = !(args.m < args.n ? Vh : U).is_none();
    run_svd(args, with_long, block, shared_limit);
  });
}

// The Gram route alone: what it refuses keeps a first value of -1. False where it is not taken.
bool svd_gram(const py::array& A, const py::object& U, const py::object& S, const py::object& Vh,
              bool canonical, size_t shared_limit) {
  int side = 0;
  for_real(A, [&]<class T>(T) {
    const auto args = arguments<T>(A, U, S, Vh, canonical, false);
    side = gram_side<T>(args.m, args.n, shared_limit);
    run_gram(args, side);
  });
  return side > 0;
}

void eigh(const py::array& A, const py::object& values, const py::object& vectors, bool block,
          size_t shared_limit) {
  for_real(A, [&]<class T>(T) {
    run_svd(arguments<T>(A, vectors, values, py::none(), false, true), true, block, shared_limit);
  });
}

const SimRegistration registration([](py::module_& m) {
  m.def("svd", &svd);
  m.def("svd_gram", &svd_gram);
  m.def("eigh", &eigh);
});

}  // namespace
