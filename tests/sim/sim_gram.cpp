// The gram room's kernels on the simulator, planned exactly as gram_cuda.cu plans them.
#include "gram/gram_plan.cuh"
#include "sim_module.h"

namespace {

using namespace kdops::gram::gpu;
using namespace kdops::gpu;
using Strides = std::array<int64_t, 3>;  // item, row, depth

template <class T>
GramOperand<T> operand(const py::array& storage, const Strides& s) {
  return {data_of<T>(storage), s[0], static_cast<unsigned>(s[1]), static_cast<unsigned>(s[2])};
}

// out (items, rows, cols) = scale * a bT; returns the number of splits.
int product(const py::array& a, const Strides& a_strides, const py::array& b,
            const Strides& b_strides, const py::array& out, int depth, bool symmetric,
            bool add_transpose, double scale, int64_t multiprocessors) {
  int splits = 0;
  for_storage_type(out, [&](auto kind) {
    using T = decltype(kind);
    GramProblem<T> p{};
    p.a = operand<T>(a, a_strides), p.b = operand<T>(b, b_strides);
    p.rows = static_cast<int>(out.shape(1)), p.cols = static_cast<int>(out.shape(2));
    p.depth = depth, p.symmetric = symmetric, p.add_transpose = add_transpose;
    p.scale = static_cast<Accum<T>>(scale);
    p.out = data_of<T>(out);
    for_gram_tile<T>(p.rows, p.cols, [&](auto tile) {
      using Tile = decltype(tile);
      const int64_t blocks = gram_plan<Tile>(p, out.shape(0), multiprocessors);
      std::vector<Accum<T>> partial(p.splits > 1 ? p.splits * p.split_size : 0,
                                    std::numeric_limits<Accum<T>>::quiet_NaN());
      p.partial = partial.data();
      cusim::launch(static_cast<unsigned>(blocks), Tile::kThreads, 0,
                    [&] { gram_product_kernel<T, Tile>(p); });
      if (p.splits > 1)
        cusim::launch(static_cast<unsigned>((p.split_size + 255) / 256), 256, 0, [&] {
          gram_reduce_kernel<T>(p.partial, p.out, p.split_size, p.splits, p.scale);
        });
    });
    splits = p.splits;
  });
  return splits;
}

const SimRegistration registration([](py::module_& m) { m.def("gram_product", &product); });

}  // namespace
