// The relation room's kernels on the simulator: whole losses, launched as relation_cuda.cu does.
// Gram matrices and the last product are numpy's (the gram room has its own tests).
#include <limits>

#include "relation/relation_kernels.cuh"
#include "sim_module.h"

namespace {

using namespace kdops::relation::gpu;

template <class T>
std::vector<T> poison(int64_t count) {
  return std::vector<T>(count, std::numeric_limits<T>::quiet_NaN());
}

// out (n, d) = (x - mean) * scale, its norms; returns the scale.
double centre(const py::array& x, const py::array& out, const py::array& norms) {
  double scale = std::numeric_limits<double>::quiet_NaN();
  const int n = static_cast<int>(x.shape(0)), d = static_cast<int>(x.shape(1));
  const unsigned blocks = static_cast<unsigned>((d + kStatsCols - 1) / kStatsCols);
  for_storage_type(x, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (sizeof(T) >= 4) {
      std::vector<T> mean = poison<T>(d), tops = poison<T>(blocks);
      cusim::launch(blocks, dim3(kStatsCols, kStatsRows), 0, [&] {
        relation_stats_kernel<T>(data_of<T>(x), n, d, mean.data(), tops.data());
      });
      cusim::launch(static_cast<unsigned>(n), kRowThreads, 0, [&] {
        relation_centre_kernel<T>(data_of<T>(x), d, mean.data(), tops.data(),
                                  static_cast<int>(blocks), data_of<T>(out), data_of<T>(norms),
                                  &scale);
      });
    }
  });
  return scale;
}

// Grams become distances, that of the student the Laplacian of the weights; returns the loss.
double distance(const py::array& rows_s, const py::array& norms_s, const py::array& gram_s,
                const py::array& rows_t, const py::array& norms_t, const py::array& gram_t,
                double scale) {
  const int n = static_cast<int>(gram_s.shape(0));
  const unsigned blocks = static_cast<unsigned>(n);
  DistanceTotals totals{};
  for_storage_type(gram_s, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (sizeof(T) >= 4) {
      auto sums = poison<double>(n), counts = poison<double>(n);
      const auto distances = [&](const py::array& gram, const py::array& rows,
                                 const py::array& norms, double* out) {
        cusim::launch(blocks, kRowThreads, 0, [&] {
          relation_distance_kernel<T>(data_of<T>(gram), data_of<T>(rows), n,
                                      static_cast<int>(rows.shape(1)), data_of<T>(norms),
                                      sums.data(), counts.data());
        });
        cusim::launch(1u, kRowThreads, 0,
                      [&] { relation_total_kernel(sums.data(), counts.data(), n, 1.0, out); });
      };
      distances(gram_s, rows_s, norms_s, &totals.sum_s);
      distances(gram_t, rows_t, norms_t, &totals.sum_t);
      cusim::launch(blocks, kRowThreads, 0, [&] {
        rkd_distance_loss_kernel<T>(data_of<T>(gram_s), data_of<T>(gram_t), n, &totals, sums.data(),
                                    counts.data());
      });
      cusim::launch(1u, kRowThreads, 0, [&] {
        relation_total_kernel(sums.data(), counts.data(), n, 1.0 / n / n, &totals.loss);
      });
      cusim::launch(blocks, kRowThreads, 0, [&] {
        rkd_distance_laplacian_kernel<T>(data_of<T>(gram_s), data_of<T>(gram_t), n, &totals,
                                         &scale);
      });
    }
  });
  return totals.loss;
}

// out (n, n): the Laplacian of the weights; returns the loss.
double angle(const py::array& rows_s, const py::array& norms_s, const py::array& gram_s,
             const py::array& rows_t, const py::array& norms_t, const py::array& gram_t,
             double scale, int splits, const py::array& out) {
  const int n = static_cast<int>(gram_s.shape(0)), tiles = (n + kSideTile - 1) / kSideTile;
  const int side_blocks = tiles * (tiles + 1) / 2, anchors = (n + splits - 1) / splits;
  const unsigned blocks = static_cast<unsigned>(n);
  double loss = std::numeric_limits<double>::quiet_NaN();
  for_storage_type(gram_s, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (sizeof(T) >= 4) {
      const T nan = std::numeric_limits<T>::quiet_NaN();
      std::vector<AnglePair<T>> pairs(n * n, AnglePair<T>{nan, nan, nan, nan});
      const auto fill = [&](const py::array& gram, const py::array& rows, const py::array& norms,
                            bool teacher) {
        cusim::launch(blocks, kRowThreads, 0, [&] {
          relation_pairs_kernel<T>(data_of<T>(gram), data_of<T>(rows), n,
                                   static_cast<int>(rows.shape(1)), data_of<T>(norms), teacher,
                                   pairs.data());
        });
      };
      fill(gram_s, rows_s, norms_s, false);
      fill(gram_t, rows_t, norms_t, true);
      auto w = poison<T>(n * n), m = poison<T>(int64_t(splits) * n * n);
      auto losses = poison<double>(int64_t(side_blocks) * splits);
      cusim::launch(dim3((n + kWeightThreads - 1) / kWeightThreads,
                         (n + kWeightAnchors - 1) / kWeightAnchors),
                    kWeightThreads, 0,
                    [&] { rkd_angle_weight_kernel<T>(pairs.data(), n, w.data()); });
      cusim::launch(dim3(side_blocks, splits), dim3(kSideThreads, kSideThreads), 0, [&] {
        rkd_angle_side_kernel<T>(pairs.data(), n, tiles, anchors, m.data(), losses.data());
      });
      cusim::launch(1u, kRowThreads, 0, [&] {
        relation_total_kernel(losses.data(), nullptr, side_blocks * splits, 1.0 / n / n / n, &loss);
      });
      cusim::launch(blocks, kRowThreads, 0, [&] {
        rkd_angle_laplacian_kernel<T>(pairs.data(), n, w.data(), m.data(), splits, &loss, &scale,
                                      data_of<T>(out));
      });
    }
  });
  return loss;
}

const SimRegistration registration([](py::module_& m) {
  m.def("relation_centre", &centre);
  m.def("rkd_distance", &distance);
  m.def("rkd_angle", &angle);
});

}  // namespace
