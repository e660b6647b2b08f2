// The fused Gram loss on the simulator, planned exactly as loss_launch.cuh plans it; the kernels of
// its route through positions and of nst_loss, one by one.
#include "gram/gram_plan.cuh"
#include "gram/positions_kernels.cuh"
#include "sim_module.h"

namespace {

using namespace kdops::gram::gpu;
using namespace kdops::gpu;
using Strides = std::array<int64_t, 3>;  // item, row, depth
using Map = std::pair<py::array, Strides>;

template <class T>
GramOperand<T> operand(const Map& map) {
  const auto& [storage, s] = map;
  return {data_of<T>(storage), s[0], static_cast<unsigned>(s[1]), static_cast<unsigned>(s[2])};
}

struct LossOptions {
  double scale_s, scale_t, coefficient;
  bool columns, keep, symmetric;
};

template <class T>
void total(const std::vector<double>& losses, const LossOptions& o, const py::array& loss) {
  cusim::launch(1, kGramLossThreads, 0, [&] {
    gram_total_kernel<T>(losses.data(), static_cast<int64_t>(losses.size()), o.coefficient,
                         data_of<T>(loss));
  });
}

// What follows gram_difference_kernel: the parts to D and the blocks' losses.
template <class T>
void finish(const GramDifference<T>& q, int64_t items, std::vector<T>& parts, const LossOptions& o,
            std::vector<double>& losses) {
  const GramProblem<T>& p = q.product;
  if (o.columns) {
    const int col_blocks = (p.cols + kWarp - 1) / kWarp;
    losses.assign(items * col_blocks, std::numeric_limits<double>::quiet_NaN());
    const GramColumns<T> columns{parts.data(), p.rows,           p.cols,   col_blocks,
                                 p.split_size, q.student_splits, p.splits, T(o.coefficient),
                                 o.keep,       losses.data()};
    cusim::launch(static_cast<unsigned>(losses.size()), kGramLossThreads, 0,
                  [&] { gram_columns_kernel<T>(columns); });
  } else if (p.splits > 1) {
    losses.assign((p.split_size + kGramLossThreads - 1) / kGramLossThreads,
                  std::numeric_limits<double>::quiet_NaN());
    cusim::launch(static_cast<unsigned>(losses.size()), kGramLossThreads, 0, [&] {
      gram_squares_kernel<T>(parts.data(), p.split_size, q.student_splits, p.splits, o.keep,
                             losses.data());
    });
  }
}

// d (items, rows, cols): D, or its pull for columns, if `keep`; returns the number of parts.
int gram_loss(const Map& x1, const Map& x2, const Map& y1, const Map& y2, int student_depth,
              int teacher_depth, const py::array& d, const py::array& loss,
              const std::array<double, 3>& scalars, const std::array<bool, 3>& flags,
              int64_t multiprocessors) {
  const LossOptions o{scalars[0], scalars[1], scalars[2], flags[0], flags[1], flags[2]};
  const int64_t items = d.shape(0);
  int splits = 0;
  for_storage_type(d, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (sizeof(T) >= 4) {
      GramDifference<T> q{};
      q.product.a = operand<T>(x1), q.product.b = operand<T>(x2);
      q.y1 = operand<T>(y1), q.y2 = operand<T>(y2);
      q.product.rows = static_cast<int>(d.shape(1)), q.product.cols = static_cast<int>(d.shape(2));
      q.student_depth = student_depth, q.teacher_depth = teacher_depth;
      q.product.symmetric = o.symmetric, q.product.scale = 1;
      q.scale_s = T(o.scale_s), q.scale_t = T(o.scale_t);
      for_gram_tile<T>(q.product.rows, q.product.cols, [&](auto tile) {
        using Tile = decltype(tile);
        const int64_t blocks = gram_difference_plan<Tile>(q, items, multiprocessors);
        const bool direct = !o.columns && q.product.splits == 1;
        std::vector<T> parts(direct && !o.keep ? 0 : q.product.splits * q.product.split_size,
                             std::numeric_limits<T>::quiet_NaN());
        std::vector<double> losses(direct ? blocks : 0, std::numeric_limits<double>::quiet_NaN());
        q.product.out = q.product.partial = parts.empty() ? nullptr : parts.data();
        q.losses = direct ? losses.data() : nullptr;
        cusim::launch(static_cast<unsigned>(blocks), Tile::kThreads, 0,
                      [&] { gram_difference_kernel<T, Tile>(q); });
        finish(q, items, parts, o, losses);
        total<T>(losses, o, loss);
        if (o.keep) std::copy_n(parts.data(), q.product.split_size, data_of<T>(d));
      });
      splits = q.product.splits;
    }
  });
  return splits;
}

unsigned position_blocks(int64_t count) {
  return static_cast<unsigned>((count + kPositionThreads - 1) / kPositionThreads);
}

// out (items, slow, 2, fast) or (items, 2, slow, fast), tops (items, kTopParts), see GramStack.
void gram_stack(const Map& x, const Map& y, const std::array<int64_t, 3>& sizes, int64_t pitch,
                int64_t second, bool difference_first, const py::array& tops,
                const py::array& out) {
  for_storage_type(out, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (sizeof(T) >= 4) {
      const auto [items, slow, fast] = sizes;
      const GramStack<T> q{operand<T>(x),
                           operand<T>(y),
                           items * slow * fast,
                           static_cast<int>(slow),
                           static_cast<int>(fast),
                           pitch,
                           second,
                           difference_first,
                           data_of<T>(tops),
                           data_of<T>(out)};
      cusim::launch(static_cast<unsigned>(tops.size()), kPositionThreads, 0,
                    [&] { gram_tops_kernel<T>(q); });
      cusim::launch(position_blocks(q.count), kPositionThreads, 0,
                    [&] { gram_stack_kernel<T>(q); });
    }
  });
}

// a, b (items, 2 depth, 2 depth); losses (items) in float64.
void gram_inner(const py::array& a, const py::array& b, const py::array& p_tops,
                const py::array& q_tops, const py::array& losses) {
  for_storage_type(a, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (sizeof(T) >= 4)
      cusim::launch(static_cast<unsigned>(a.shape(0)), kPositionThreads, 0, [&] {
        gram_inner_kernel<T>(data_of<T>(a), data_of<T>(b), data_of<T>(p_tops), data_of<T>(q_tops),
                             static_cast<int>(a.shape(1) / 2), data_of<double>(losses));
      });
  });
}

// unit (B, C, L), inverse (B, C).
void unit_rows(const Map& x, const py::array& unit, const py::array& inverse) {
  const int64_t rows = inverse.size();
  for_storage_type(unit, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (sizeof(T) >= 4)
      cusim::launch(position_blocks(rows * kWarp), kPositionThreads, 0, [&] {
        unit_rows_kernel<T>(operand<T>(x), rows, static_cast<int>(unit.shape(1)),
                            static_cast<int>(unit.shape(2)), data_of<T>(unit), data_of<T>(inverse));
      });
  });
}

void unit_rows_back(const py::array& unit, const py::array& inverse, const py::array& g) {
  const int64_t rows = inverse.size();
  for_storage_type(unit, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (sizeof(T) >= 4)
      cusim::launch(position_blocks(rows * kWarp), kPositionThreads, 0, [&] {
        unit_rows_back_kernel<T>(data_of<T>(unit), data_of<T>(inverse), rows,
                                 static_cast<int>(unit.shape(2)), data_of<T>(g));
      });
  });
}

const SimRegistration registration([](py::module_& m) {
  m.attr("top_parts") = kTopParts;
  m.def("gram_loss", &gram_loss);
  m.def("gram_stack", &gram_stack);
  m.def("gram_inner", &gram_inner);
  m.def("unit_rows", &unit_rows);
  m.def("unit_rows_back", &unit_rows_back);
});

}  // namespace
