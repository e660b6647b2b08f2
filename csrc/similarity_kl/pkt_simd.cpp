// The kernels of PKT's loss, compiled once per instruction set.
#include "similarity_kl/pkt_simd.h"

#include "common/simd/scratch.h"
#include "similarity_kl/pkt.h"
#include "similarity_kl/rows.h"

namespace kdops::similarity_kl::KDOPS_ISA {

template <class T>
void pkt_place(const PktProblem<T>& problem, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    const Given<T>& given = problem.given[n];
    const Network<T>& to = problem.networks[n];
    measure(given, Norm::padded, 0);
    find_centre(given, 0, true, to.centres);
    place(given, to.rows, to.centres, 1, 0);
    const double square =
        sum_of(given.width, [&](int64_t k) { return to.centres[k] * to.centres[k]; });
    for (int64_t i = 0; i < padded(given.count); ++i) {
      const double along = i < given.count ? static_cast<double>(to.rows.bias[i]) : 0;
      to.rows.lse[i] = static_cast<T>(1 / (1 + along + square));
    }
  }
}

template <class T>
void pkt_blocks(const PktProblem<T>& q, int64_t begin, int64_t end) {
  const int64_t count = q.given[0].count, width = q.given[0].width;
  const double rows = static_cast<double>(count);
  const auto itself = [&](int n) {
    const Entry<T> own = entry_of(q.networks[n].rows, 0);
    return Meeting<T>{own, own, 1, false};
  };
  const PktSet<T> set{itself(0), itself(1), static_cast<T>(q.epsilon * rows)};
  Scratch<T> tiles(2 * kBlock * kTile);
  for (int64_t item = begin; item < end; ++item) {
    const Rows block = block_of(item, count);
    PktRow results[kBlock];
    pkt_block(set, block, tiles.get(), results,
              q.gradients ? q.out + block.begin * width : nullptr);
    double loss = 0;
    for (int64_t i = block.begin; i < block.end; ++i) {
      const PktRow& result = results[i - block.begin];
      loss += result.loss;
      q.shares[i] = result.shares / rows * static_cast<double>(set.student.own.lse[i]);
      q.weights[i] = result.weights;
    }
    q.losses[item] = loss;
  }
}

template <class T>
void pkt_finish(const PktProblem<T>& q, int64_t begin, int64_t end) {
  const int64_t count = q.given[0].count, width = q.given[0].width;
  const double rows = static_cast<double>(count), factor = 1 / (rows * rows * rows);
  const double shares = sum_of(count, [&](int64_t i) { return q.shares[i]; });
  Scratch<double> pulled(width);
  for (int64_t i = begin; i < end; ++i) {
    T* out = q.out + i * width;
    for (int64_t k = 0; k < width; ++k) pulled[k] = static_cast<double>(out[k]) - q.common[k];
    const Pulled<T, double> p{q.networks[0].rows.rows + i * width, q.given[0].factors[i].inverse,
                              pulled.get(), q.weights[i] - rows * q.shares[i] - shares};
    finish_row(Norm::padded, p, q.networks[0].centres, width, factor, out);
  }
}

KDOPS_COMPILE_REAL(pkt_place)
KDOPS_COMPILE_REAL(pkt_blocks)
KDOPS_COMPILE_REAL(pkt_finish)

}  // namespace kdops::similarity_kl::KDOPS_ISA
