// gram_anchoring_loss on raw pointers, compiled once per instruction set.
#include "token_gram/anchoring_simd.h"

#include "token_gram/features.h"
#include "token_gram/tiles.h"
#include "token_gram/units.h"

namespace kdops::token_gram::KDOPS_ISA {

// Tiles of equal size and whole registers and groups, not deeper than gemm multiplies at once, and
// rather many than large: the pairs of a round are shared among threads.
template <class T>
int64_t anchor_tile(int64_t tokens) {
  constexpr int64_t kMost = kPackBytes == 64 ? 144 : 120,
                    kUnit = std::max<int64_t>(kTileCols<T>, 24);
  static_assert(kMost <= kBlockDepth && kMost % kUnit == 0 && kUnit % kTokenGroup == 0);
  static_assert(kUnit % kTileCols<T> == 0);
  const int64_t tiles = (tokens + kMost - 1) / kMost;
  const int64_t even = (tokens + tiles - 1) / std::max<int64_t>(tiles, 1);
  return std::max<int64_t>((even + kUnit - 1) / kUnit, 1) * kUnit;
}

template <class T>
void anchor_units(const Anchoring<T>& p, int64_t begin, int64_t end) {
  Scratch<T> rows(kTokenGroup * std::max(p.student.width, p.teacher.width));
  for (int64_t item = begin; item < end; ++item) {
    const int64_t first = item * kTokenGroup, count = std::min(kTokenGroup, p.tokens - first);
    make_units<T>(p.student, first, count, p.x, p.inverse, rows.get());
    make_units<T>(p.teacher, first, count, p.y, nullptr, rows.get());
  }
}

template <class T>
void anchor_pairs(const Anchoring<T>& p, int64_t begin, int64_t end) {
  const int64_t entries = p.x.tile * p.x.tile;
  Scratch<T> student(entries), teacher(entries);
  for (int64_t i = begin; i < end; ++i) anchor_pair(p, i, student.get(), teacher.get());
}

template <class T>
void anchor_products(const Anchoring<T>& p, int64_t begin, int64_t end) {
  Scratch<T> spare(kFeatureBlock * kFeatureBlock);
  const ProductBlocks blocks = product_blocks(p.x.width, p.y.width);
  const int64_t teacher = blocks.student + blocks.mixed;
  const auto x = columns_of(p.x, p.tokens);
  for (int64_t i = begin; i < end; ++i)
    p.sums[i] = i < blocks.student ? mirrored_block(x, i, p.xx, p.products_row)
                : i < teacher      ? mixed_block(p, i - blocks.student)
                                   : teacher_block(p, i - teacher, spare.get());
}

template <class T>
void anchor_pull(const Anchoring<T>& p, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i)
    pull_of_tokens(p, i * kTokenBlock, std::min((i + 1) * kTokenBlock, p.tokens));
}

template <class T>
void anchor_back(const Anchoring<T>& p, int64_t begin, int64_t end) {
  const int64_t entries = kTokenGroup * p.student.width;
  Scratch<T> pulls(entries), units(entries);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t first = item * kTokenGroup, count = std::min(kTokenGroup, p.tokens - first);
    units_back(p, first, count, pulls.get(), units.get());
  }
}

KDOPS_COMPILE_REAL(anchor_tile)
KDOPS_COMPILE_REAL(anchor_units)
KDOPS_COMPILE_REAL(anchor_pairs)
KDOPS_COMPILE_REAL(anchor_products)
KDOPS_COMPILE_REAL(anchor_pull)
KDOPS_COMPILE_REAL(anchor_back)

}  // namespace kdops::token_gram::KDOPS_ISA
