// The kernels of PKT's loss, compiled once per instruction set.
#include "similarity_kl/pkt_simd.h"

#include "common/simd/scratch.h"
#include "similarity_kl/pkt.h"
#include "similarity_kl/rows.h"

namespace kdops::similarity_kl::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

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
  const Pair<T> set{entry_of(q.networks[0].rows, 0), entry_of(q.networks[1].rows, 0)};
  const double rows = static_cast<double>(count);
  Scratch<T> tiles(2 * kBlock * kTile);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t i0 = item * kBlock, i1 = std::min(i0 + kBlock, count);
    PktRow results[kBlock];
    pkt_block(set, static_cast<T>(q.epsilon * rows), i0, i1, tiles.get(), results,
              q.gradients ? q.out + i0 * width : nullptr);
    double loss = 0;
    for (int64_t i = i0; i < i1; ++i) {
      const PktRow& result = results[i - i0];
      loss += result.loss;
      q.shares[i] = result.shares / rows * static_cast<double>(set.student.lse[i]);
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
    const Pulled<double> p{pulled.get(), q.weights[i] - rows * q.shares[i] - shares};
    finish_row(q.given[0], Norm::padded, 0, i, p, q.networks[0].rows.rows + i * width,
               q.networks[0].centres, factor, out);
  }
}

KDOPS_COMPILE_REAL(pkt_place)
KDOPS_COMPILE_REAL(pkt_blocks)
KDOPS_COMPILE_REAL(pkt_finish)

}  // namespace kdops::similarity_kl::KDOPS_ISA
