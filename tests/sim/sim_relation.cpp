// The kernels of the RKD losses on the simulator: whole losses, launched as relation_cuda.cu does.
#include <algorithm>
#include <limits>

#include "gram/gram_plan.cuh"
#include "relation/angle_kernels.cuh"
#include "sim_module.h"

namespace {

using namespace kdops::relation::gpu;

// Kernels' memory, poisoned: NaN for numbers, nonsense for others.
template <class T>
std::vector<T> poison(int64_t count) {
  return std::vector<T>(count, std::numeric_limits<T>::quiet_NaN());
}

template <class T>
struct OneSide {
  std::vector<T> mean, tops, gram, norms;
  double scale = std::numeric_limits<double>::quiet_NaN();

  Side<T> side(const py::array& x, int column_blocks, int splits) {
    const int n = static_cast<int>(x.shape(0)), d = static_cast<int>(x.shape(1));
    mean = poison<T>(std::max(1, d)), tops = poison<T>(column_blocks);
    gram = poison<T>(int64_t(splits) * n * n), norms = poison<T>(int64_t(splits) * n);
    return {d == 0 ? mean.data() : data_of<T>(x),
            n,
            d,
            mean.data(),
            tops.data(),
            gram.data(),
            norms.data(),
            &scale};
  }
};

// Both sides, after the first two launches.
template <class T>
struct Prepared {
  OneSide<T> student, teacher;
  kdops::gram::gpu::GramProblem<T> product{};
  Sides<T> sides{};
  unsigned n;

  Prepared(const py::array& s, const py::array& t, int multiprocessors, int* near)
      : n(static_cast<unsigned>(s.shape(0))) {
    const int longest = static_cast<int>(std::max(s.shape(1), t.shape(1)));
    product.rows = product.cols = static_cast<int>(n), product.depth = longest;
    product.symmetric = true;
    const int64_t blocks =
        kdops::gram::gpu::gram_plan<RelationTile<T>>(product, 2, multiprocessors);
    sides.splits = product.splits;
    sides.column_blocks = std::max(1, (longest + kStatsCols - 1) / kStatsCols);
    sides.student = student.side(s, sides.column_blocks, sides.splits);
    sides.teacher = teacher.side(t, sides.column_blocks, sides.splits);
    cusim::launch(dim3(static_cast<unsigned>(sides.column_blocks), 2), dim3(kStatsCols, kStatsRows),
                  0, [&] { relation_stats_kernel<T>(sides); });
    cusim::launch(static_cast<unsigned>(blocks), RelationTile<T>::kThreads, 0,
                  [&] { relation_gram_kernel<T>(product, sides, near); });
  }

  dim3 both() const { return dim3(n, 2); }

  template <class Others>
  void pull_back(const Others& others, T* grad) const {
    kdops::gram::gpu::GramProblem<T> p{};
    p.rows = p.depth = p.split_depth = static_cast<int>(n), p.cols = sides.student.d;
    p.splits = 1;
    p.col_tiles = (p.cols + GradientTile::kCols - 1) / GradientTile::kCols;
    p.tiles = p.col_tiles * ((p.rows + GradientTile::kRows - 1) / GradientTile::kRows);
    cusim::launch(static_cast<unsigned>(p.tiles), GradientTile::kThreads, 0, [&] {
      relation_gradient_kernel<T, Others>(p, sides.student.gram, sides.student, others, grad);
    });
  }
};

// The loss; grad (n, d) is None where no gradient is wanted.
double distance(const py::array& student, const py::array& teacher, int multiprocessors,
                const py::object& grad) {
  double result = 0;
  for_real(student, [&](auto kind) {
    using T = decltype(kind);
    const Prepared<T> known(student, teacher, multiprocessors, nullptr);
    const int n = static_cast<int>(known.n);
    auto sums = poison<double>(4 * n), losses = poison<double>(2 * n);
    DistanceUnits units{};
    const RowSums rows{sums.data(), sums.data() + 2 * n};
    const RowLosses found{losses.data(), losses.data() + n, &units, 1.0 / n / n};
    T loss = std::numeric_limits<T>::quiet_NaN();
    cusim::launch(known.both(), kRowThreads, 0,
                  [&] { relation_distance_kernel<T>(known.sides, rows); });
    cusim::launch(known.n, kRowThreads, 0,
                  [&] { rkd_distance_loss_kernel<T>(known.sides, rows, found); });
    if (grad.is_none()) {
      cusim::launch(1u, kRowThreads, 0,
                    [&] { relation_total_kernel<T>(found.losses, n, found.factor, &loss); });
    } else {
      std::vector<int> lossy(n, -1);
      cusim::launch(known.n, kRowThreads, 0, [&] {
        rkd_distance_laplacian_kernel<T>(known.sides, found, lossy.data(), &loss);
      });
      const Side<T>& side = known.sides.student;
      known.pull_back(LossyRows<T>{side.gram, side, lossy.data()}, data_of<T>(grad));
    }
    result = static_cast<double>(loss);
  });
  return result;
}

// The tables of a kind of pairs. The two kinds share no memory here, so that a step that should not
// be taken meets NaN.
template <class P>
struct Tables {
  using T = typename P::Real;
  std::vector<P> pairs;
  std::vector<T> w, m;

  AngleTriples<P> triples(int n, int splits, bool want_grad) {
    P poisoned;
    std::fill_n(reinterpret_cast<T*>(&poisoned), sizeof(P) / sizeof(T),
                std::numeric_limits<T>::quiet_NaN());
    pairs.assign(size_t(n) * n, poisoned);
    w = poison<T>(n * n), m = poison<T>(int64_t(splits) * n * n);
    AngleTriples<P> result{pairs.data(), n, splits};
    if (want_grad) result.w = w.data(), result.m = m.data();
    return result;
  }
};

// The loss, and whether some rows are too near to others for T.
py::tuple angle(const py::array& student, const py::array& teacher, int multiprocessors, int splits,
                const py::object& grad) {
  double result = 0;
  int near = -1;
  for_real(student, [&](auto kind) {
    using T = decltype(kind);
    const Prepared<T> known(student, teacher, multiprocessors, &near);
    const int n = static_cast<int>(known.n);
    const bool want_grad = !grad.is_none();
    T loss = std::numeric_limits<T>::quiet_NaN();
    Tables<AnglePair<T>> tables;
    Tables<FarPair> far;
    AngleWork<T> work{known.sides, tables.triples(n, splits, want_grad),
                      far.triples(n, splits, want_grad), &near, &loss};
    auto losses = poison<double>(work.far.loss_count());
    work.triples.losses = work.far.losses = losses.data();
    cusim::launch(known.both(), kRowThreads, 0,
                  [&] { rkd_angle_pairs_kernel<T>(known.sides, tables.pairs.data(), &near); });
    cusim::launch(static_cast<unsigned>(work.triples.blocks()), kTripleThreads, 0,
                  [&] { rkd_angle_triples_kernel<T>(work); });
    cusim::launch(known.n, kRowThreads, 0, [&] {
      rkd_angle_laplacian_kernel<T>(work, want_grad ? known.sides.student.gram : nullptr);
    });
    if (want_grad) {
      known.pull_back(FarRows<T>{work, 0, false}, data_of<T>(grad));
    } else {
      cusim::launch(1u, kRowThreads, 0, [&] {
        relation_total_kernel<T>(losses.data(), work.far.loss_count(), 1.0 / n / n / n, &loss);
      });
    }
    result = static_cast<double>(loss);
  });
  return py::make_tuple(result, near != 0);
}

const SimRegistration registration([](py::module_& m) {
  m.def("rkd_distance", &distance);
  m.def("rkd_angle", &angle);
});

}  // namespace
