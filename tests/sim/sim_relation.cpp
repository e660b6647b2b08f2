// The relation room's kernels on the simulator: whole losses, launched as relation_cuda.cu does.
// Gram matrices and the last product are numpy's (the gram room has its own tests).
#include <algorithm>
#include <limits>

#include "relation/angle_kernels.cuh"
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
      const RowStats<T> stats{mean.data(), tops.data(), static_cast<int>(blocks)};
      const CentredRows<T> centred{data_of<T>(out), data_of<T>(norms), &scale, nullptr};
      cusim::launch(static_cast<unsigned>(n), kRowThreads, 0,
                    [&] { relation_centre_kernel<T>(data_of<T>(x), d, stats, centred); });
    }
  });
  return scale;
}

template <class T>
GivenRows<T> given_rows(const py::array& given, const py::array& norms, const double& scale) {
  return {.data = data_of<T>(given),
          .n = static_cast<int>(given.shape(0)),
          .d = static_cast<int>(given.shape(1)),
          .norms = data_of<T>(norms),
          .scale = &scale};
}

// Grams become distances, that of the student the Laplacian of the weights; returns the loss.
double distance(const py::array& given_s, const py::array& norms_s, const py::array& gram_s,
                double scale_s, const py::array& given_t, const py::array& norms_t,
                const py::array& gram_t, double scale_t, const py::array& lossy) {
  const int n = static_cast<int>(gram_s.shape(0));
  const unsigned blocks = static_cast<unsigned>(n);
  DistanceTotals totals{};
  for_storage_type(gram_s, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (sizeof(T) >= 4) {
      auto sums = poison<double>(n), counts = poison<double>(n);
      const auto distances = [&](const py::array& gram, const py::array& given,
                                 const py::array& norms, const double& scale, double* out) {
        cusim::launch(blocks, kRowThreads, 0, [&] {
          relation_distance_kernel<T>(data_of<T>(gram), given_rows<T>(given, norms, scale),
                                      sums.data(), counts.data());
        });
        cusim::launch(1u, kRowThreads, 0,
                      [&] { relation_total_kernel(sums.data(), counts.data(), n, 1.0, out); });
      };
      distances(gram_s, given_s, norms_s, scale_s, &totals.sum_s);
      distances(gram_t, given_t, norms_t, scale_t, &totals.sum_t);
      cusim::launch(blocks, kRowThreads, 0, [&] {
        rkd_distance_loss_kernel<T>(data_of<T>(gram_s), data_of<T>(gram_t), n, &totals, sums.data(),
                                    counts.data());
      });
      cusim::launch(1u, kRowThreads, 0, [&] {
        relation_total_kernel(sums.data(), counts.data(), n, 1.0 / n / n, &totals.loss);
      });
      cusim::launch(blocks, kRowThreads, 0, [&] {
        rkd_distance_laplacian_kernel<T>(data_of<T>(gram_s), data_of<T>(gram_t), n,
                                         data_of<T>(norms_s), &totals, &scale_s,
                                         data_of<int>(lossy));
      });
    }
  });
  return totals.loss;
}

// Tables of the triples for a kind of pairs, and the launches that fill them.
template <class P>
struct Triples {
  using T = typename P::Real;
  int n, splits, tiles = (n + kSideTile - 1) / kSideTile, side_blocks = tiles * (tiles + 1) / 2;
  std::vector<P> pairs{size_t(n) * n, poisoned()};
  std::vector<T> w = poison<T>(n * n), m = poison<T>(int64_t(splits) * n * n);

  static P poisoned() {
    P pair;
    std::fill_n(reinterpret_cast<T*>(&pair), sizeof(P) / sizeof(T),
                std::numeric_limits<T>::quiet_NaN());
    return pair;
  }

  AngleWeights<P> weights(const double* loss, const int* near) const {
    return {.pairs = pairs.data(),
            .n = n,
            .splits = splits,
            .w = w.data(),
            .m = m.data(),
            .loss = loss,
            .near = near};
  }

  void launch(const int* near, double* losses) {
    cusim::launch(
        dim3((n + kWeightThreads - 1) / kWeightThreads, (n + kWeightAnchors - 1) / kWeightAnchors),
        kWeightThreads, 0, [&] { rkd_angle_weight_kernel<P>(pairs.data(), n, near, w.data()); });
    cusim::launch(dim3(side_blocks, splits), dim3(kSideThreads, kSideThreads), 0, [&] {
      rkd_angle_side_kernel<P>(pairs.data(), n, tiles, (n + splits - 1) / splits, near, m.data(),
                               losses);
    });
  }
};

// out (n, n): the Laplacian of the weights, or, for rows that lie too far apart, grad (n, d): the
// gradient. Returns the loss and whether they do.
py::tuple angle(const py::array& given_s, const py::array& norms_s, const py::array& gram_s,
                double scale_s, const py::array& given_t, const py::array& norms_t,
                const py::array& gram_t, double scale_t, int splits, const py::array& out,
                const py::array& grad) {
  const int n = static_cast<int>(gram_s.shape(0));
  const unsigned blocks = static_cast<unsigned>(n);
  double loss = std::numeric_limits<double>::quiet_NaN();
  int near = 0;
  for_real(gram_s, [&](auto kind) {
    using T = decltype(kind);
    Triples<AnglePair<T>> triples{n, splits};
    Triples<FarPair> far{n, splits};
    const GivenRows<T> student = given_rows<T>(given_s, norms_s, scale_s);
    const GivenRows<T> teacher = given_rows<T>(given_t, norms_t, scale_t);
    const auto fill = [&](const py::array& gram, const GivenRows<T>& rows, bool of_teacher) {
      cusim::launch(blocks, kRowThreads, 0, [&] {
        relation_pairs_kernel<T>(data_of<T>(gram), rows, of_teacher, triples.pairs.data(), &near);
      });
    };
    fill(gram_s, student, false);
    fill(gram_t, teacher, true);
    auto losses = poison<double>(int64_t(triples.side_blocks) * splits);
    triples.launch(&near, losses.data());
    cusim::launch(blocks, kRowThreads, 0, [&] {
      rkd_angle_far_pairs_kernel<T>(student, teacher, &near, far.pairs.data());
    });
    far.launch(&near, losses.data());
    cusim::launch(1u, kRowThreads, 0, [&] {
      relation_total_kernel(losses.data(), nullptr, static_cast<int>(losses.size()),
                            1.0 / n / n / n, &loss);
    });
    cusim::launch(blocks, kRowThreads, 0, [&] {
      rkd_angle_laplacian_kernel<T>(triples.weights(&loss, &near), &scale_s, data_of<T>(out));
    });
    cusim::launch(blocks, kRowThreads, 0, [&] {
      rkd_angle_far_gradient_kernel<T>(far.weights(&loss, &near), student, data_of<T>(grad));
    });
  });
  return py::make_tuple(loss, near != 0);
}

// grad (n, d), the product of the Laplacian with the centred rows, completed; lossy may be empty.
void finish(const py::array& laplacian, const py::array& given, double scale,
            const py::array& lossy, const py::array& grad) {
  const int n = static_cast<int>(given.shape(0));
  const int* marks = lossy.size() == 0 ? nullptr : data_of<int>(lossy);
  for_storage_type(grad, [&](auto kind) {
    using T = decltype(kind);
    if constexpr (sizeof(T) >= 4) {
      const GivenRows<T> rows{.data = data_of<T>(given),
                              .n = n,
                              .d = static_cast<int>(given.shape(1)),
                              .norms = nullptr,
                              .scale = &scale};
      cusim::launch(static_cast<unsigned>(n), kRowThreads, 0, [&] {
        relation_finish_kernel<T>(data_of<T>(laplacian), rows, marks, data_of<T>(grad));
      });
    }
  });
}

const SimRegistration registration([](py::module_& m) {
  m.def("relation_centre", &centre);
  m.def("relation_finish", &finish);
  m.def("rkd_distance", &distance);
  m.def("rkd_angle", &angle);
});

}  // namespace
