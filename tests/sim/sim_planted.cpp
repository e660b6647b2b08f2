// Kernels with and without a planted fault, and the vocabulary of lane.cuh, for test_simulator.py.
#include "sim_module.h"

namespace kdops::gpu {

// Reverses an array through shared memory; without the barrier it reads what is not there yet.
__global__ void reverse_kernel(const float* in, float* out, bool with_barrier) {
  KDOPS_SHARED(float, tile, [256]);
  tile[threadIdx.x] = in[threadIdx.x];
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

// The same inside each warp, in memory that was written before: stale values instead of NaN.
__global__ void rotate_kernel(float* values, bool with_barrier) {
  KDOPS_DYNAMIC_SHARED(float, tile);
  const int neighbour = static_cast<int>(threadIdx.x) / kWarp * kWarp + (lane_id() + 1) % kWarp;
  for (int step = 0; step < 3; ++step) {
    tile[threadIdx.x] = values[threadIdx.x];
    sync_warp();
    values[threadIdx.x] = tile[neighbour];
    if (with_barrier) sync_warp();
  }
}

__global__ void faulty_kernel(const std::string& fault) {
  KDOPS_SHARED(float, few, [4]);
  const unsigned lane = threadIdx.x % kWarp;
  volatile float* outside = few;  // volatile: the store must stay
  if (fault == "divergent barrier" && threadIdx.x < 32) __syncthreads();
  if (fault == "barrier after exit") {
    if (threadIdx.x == 5) return;
    __syncthreads();
  }
  if (fault == "two barriers") {
    if (threadIdx.x < 32)
      __syncthreads();
    else
      __syncthreads();
  }
  if (fault == "exited lane") {
    if (lane == 7) return;
    shuffle_xor(1.0f, 1);
  }
  if (fault == "lane outside mask") __shfl_sync(1u << lane, 1.0f, 3);
  if (fault == "mask without caller") __syncwarp(~(1u << lane));
  if (fault == "different operations") {
    if (lane < 16)
      sync_warp();
    else
      warp_any(true);
  }
  if (fault == "deadlock") {
    if (lane == 0)
      __syncthreads();
    else
      sync_warp();
  }
  if (fault == "write past shared") outside[lane == 0 ? 4 : 0] = 1.0f;
  if (fault == "static shared too large") {
    KDOPS_SHARED(double, large, [8192]);
    large[threadIdx.x] = 0.0;
  }
}

// Row r of out: reduction r over groups of W lanes, as every lane received it.
template <class T, int W>
__global__ void warp_kernel(const T* in, T* out) {
  const unsigned t = threadIdx.x, n = blockDim.x;
  const T x = in[t];
  const auto best = warp_argmax<W>(x, group_lane<W>());
  const T rows[] = {warp_sum<W>(x),
                    warp_max<W>(x),
                    warp_min<W>(x),
                    best.value,
                    static_cast<T>(best.index),
                    static_cast<T>(warp_any<W>(x > T(1))),
                    static_cast<T>(warp_all<W>(x > T(-1))),
                    static_cast<T>(warp_ballot<W>(x > T(0))),
                    shuffle_down<W>(x, 1),
                    shuffle_up<W>(x, 1),
                    shuffle<W>(x, W / 2),
                    shuffle_xor<W>(x, W / 2)};
  for (unsigned r = 0; r < sizeof rows / sizeof *rows; ++r) out[r * n + t] = rows[r];
}

template <class T, int kThreads>
__global__ void block_kernel(const T* in, T* out) {
  const T x = in[threadIdx.x];
  const T rows[] = {block_sum<kThreads>(x), block_max<kThreads>(x), block_min<kThreads>(x),
                    static_cast<T>(block_any(x > T(2))), static_cast<T>(block_all(x > T(-2)))};
  for (unsigned r = 0; r < sizeof rows / sizeof *rows; ++r)
    out[r * kThreads + threadIdx.x] = rows[r];
}

template <class T>
__global__ void round_kernel(const float* in, T* out) {
  out[threadIdx.x] = from_accum<T>(in[threadIdx.x]);
}
template <class T>
__global__ void widen_kernel(const T* in, float* out) {
  out[threadIdx.x] = to_accum(in[threadIdx.x]);
}

}  // namespace kdops::gpu

namespace {

using namespace kdops;

void reverse(const py::array& in, const py::array& out, bool with_barrier) {
  const auto* x = data_of<float>(in);
  auto* y = data_of<float>(out);
  cusim::launch(1, static_cast<unsigned>(in.size()), 0,
                [&] { gpu::reverse_kernel(x, y, with_barrier); });
}

void rotate(const py::array& values, bool with_barrier) {
  auto* x = data_of<float>(values);
  const auto n = static_cast<unsigned>(values.size());
  cusim::launch(1, n, n * sizeof(float), [&] { gpu::rotate_kernel(x, with_barrier); });
}

void faulty(const std::string& fault) {
  cusim::launch(2, 64, 0, [&] { gpu::faulty_kernel(fault); });
}

template <int W>
void warp(const py::array& in, const py::array& out) {
  const auto n = static_cast<unsigned>(in.size());
  if (in.itemsize() == 4)
    cusim::launch(1, n, 0,
                  [&] { gpu::warp_kernel<float, W>(data_of<float>(in), data_of<float>(out)); });
  else
    cusim::launch(1, n, 0,
                  [&] { gpu::warp_kernel<double, W>(data_of<double>(in), data_of<double>(out)); });
}

template <int kThreads>
void block(const py::array& in, const py::array& out) {
  cusim::launch(1, kThreads, 0, [&] {
    gpu::block_kernel<double, kThreads>(data_of<double>(in), data_of<double>(out));
  });
}

// Rounds float32 to the half type of `half`, and widens it back.
void round_trip(const py::array& in, const py::array& half, const py::array& back) {
  const auto n = static_cast<unsigned>(in.size());
  for_storage_type(half, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (sizeof(T) == 2) {
      cusim::launch(1, n, 0, [&] { gpu::round_kernel(data_of<float>(in), data_of<T>(half)); });
      cusim::launch(1, n, 0, [&] { gpu::widen_kernel(data_of<T>(half), data_of<float>(back)); });
    }
  });
}

const SimRegistration registration([](py::module_& m) {
  m.def("planted_reverse", &reverse);
  m.def("planted_rotate", &rotate);
  m.def("planted_fault", &faulty);
  m.def("warp32", &warp<32>);
  m.def("warp8", &warp<8>);
  m.def("warp1", &warp<1>);
  m.def("block32", &block<32>);
  m.def("block128", &block<128>);
  m.def("block1024", &block<1024>);
  m.def("round_trip", &round_trip);
});

}  // namespace
