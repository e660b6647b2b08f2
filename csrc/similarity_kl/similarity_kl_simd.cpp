// The kernels of the similarity KL, compiled once per instruction set.
#include "similarity_kl/similarity_kl_simd.h"

#include "common/simd/scratch.h"
#include "similarity_kl/rows.h"
#include "similarity_kl/tiles.h"

namespace kdops::similarity_kl::KDOPS_ISA {

template <class In>
void kl_measure(const Given<In>& given, Norm norm, int64_t begin, int64_t end) {
  for (int64_t b = begin; b < end; ++b) measure(given, norm, b);
}

template <class In, class T>
void kl_place(const Placing<In, T>& problem, int64_t begin, int64_t end) {
  const auto& [rows, keys, to, same] = problem;
  for (int64_t b = begin; b < end; ++b) {
    double* centre = to.centres + b * keys.width;
    find_centre(keys, b, false, centre);
    place(rows, to.rows, centre, to.rate, b);
    if (!same) place(keys, to.keys, centre, to.rate, b);
  }
}

template <class T>
void kl_statistics(const Statistics<T>& problem, int64_t begin, int64_t end) {
  const auto& [rows, keys, centres, kept, rate] = problem.network;
  Scratch<T> tile(kept == nullptr ? kBlock * kTile : 0);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / problem.blocks;
    const Rows block = block_of(item % problem.blocks, rows.used[b]);
    if (block.count() <= 0) continue;
    T* tiles = kept == nullptr ? tile.get() : kept + item * products_of(keys.count);
    const Meeting<T> p{entry_of(rows, b), entry_of(keys, b), rate, problem.without_self};
    statistics_block(p, block, tiles, kept != nullptr, problem.logs + b * rows.count);
  }
}

namespace {

template <Sides kSides, class In, class T>
void pull_blocks(const Pull<In, T>& q, int64_t begin, int64_t end) {
  constexpr bool kKeys = kSides == Sides::keys;
  const Placed<T>& own_s = kKeys ? q.student.keys : q.student.rows;
  const Placed<T>& own_t = kKeys ? q.teacher.keys : q.teacher.rows;
  const Placed<T>& other_s = kKeys ? q.student.rows : q.student.keys;
  const Placed<T>& other_t = kKeys ? q.teacher.rows : q.teacher.keys;
  const int64_t width = own_s.width;
  const bool kept = !kKeys && q.student.kept != nullptr;
  Scratch<T> room(kept ? 0 : 2 * kBlock * kTile), pulled(q.gradients ? kBlock * width : 0);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / q.blocks;
    const Rows block = block_of(item % q.blocks, own_s.used[b]);
    const Meeting<T> s{entry_of(own_s, b), entry_of(other_s, b), q.student.rate, q.without_self};
    const Meeting<T> t{entry_of(own_t, b), entry_of(other_t, b), q.teacher.rate, q.without_self};
    const int64_t at = item * products_of(other_s.count);
    const Tiles<T> tiles{kept ? q.student.kept + at : room.get(),
                         kept ? q.teacher.kept + at : room.get() + kBlock * kTile, kept};
    RowResult results[kBlock];
    if (block.count() > 0) pull_block<kSides>(s, t, block, tiles, results, pulled.get());
    double loss = 0;
    for (const RowResult& result : results) loss += result.loss;
    if (q.losses != nullptr) q.losses[item] = loss;
    if (!q.gradients) continue;
    for (int64_t i = block.begin; i < block.end; ++i) {
      const int64_t at = i - block.begin, away = row_of(q.given, b, i) - q.given.data;
      const double inverse = q.given.factors[b * q.given.count + i].inverse;
      const Pulled<T, T> p{s.own.rows + i * width, inverse, pulled.get() + at * width,
                           results[at].weights};
      finish_row(q.norm, p, q.student.centres + b * width, width, q.factor, q.out + away);
    }
  }
}

}  // namespace

template <class In, class T>
void kl_pull(const Pull<In, T>& problem, int64_t begin, int64_t end) {
  if (problem.sides == Sides::rows) pull_blocks<Sides::rows>(problem, begin, end);
  if (problem.sides == Sides::keys) pull_blocks<Sides::keys>(problem, begin, end);
  if (problem.sides == Sides::both) pull_blocks<Sides::both>(problem, begin, end);
}

#define KDOPS_COMPILE_BOTH(In, T)                                         \
  template void kl_place<In, T>(const Placing<In, T>&, int64_t, int64_t); \
  template void kl_pull<In, T>(const Pull<In, T>&, int64_t, int64_t);
KDOPS_COMPILE_BOTH(float, float)
KDOPS_COMPILE_BOTH(float, double)
KDOPS_COMPILE_BOTH(double, double)
KDOPS_COMPILE_REAL(kl_measure)
KDOPS_COMPILE_REAL(kl_statistics)

}  // namespace kdops::similarity_kl::KDOPS_ISA
