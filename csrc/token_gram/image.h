// The steps of one image of gram_anchoring_loss, in the order of its route, on one thread or shared
// among all. Glue: compiled once. Caller: token_gram.cpp.
#pragma once

#include <algorithm>
#include <optional>

#include "common/simd/scratch.h"
#include "common/torch/check.h"
#include "common/torch/parallel.h"
#include "common/torch/tensors.h"
#include "token_gram/anchoring_simd.h"

namespace kdops::token_gram {

// Products of features lose digits where their difference is this part of what it is made of: the
// image goes by tiles.
inline constexpr double kCancelled = 1.0 / 512;
// Where the entries themselves cancel to this part (of squares), or a pull on unit tokens points
// along them but for this part, float has too few digits: the image is done again in double.
inline constexpr double kTooFewDigits = 1.0 / 65536;

inline void check_tokens(const char* op, const Tensor& student, const Tensor& teacher) {
  check_dim(op, "student", student, 3);
  check_sizes(op, "teacher", teacher, student, {student.size(0), student.size(1), kAnySize});
}

// Flops of an image, or of a matrix of rows: not worth many threads.
inline constexpr double kSmallImage = 16e6;

struct ImageSizes {
  int64_t tokens, student, teacher;

  double by_tiles() const {  // multiply-adds
    const double n = static_cast<double>(tokens);
    return n * n * (1.5 * static_cast<double>(student) + 0.5 * static_cast<double>(teacher));
  }
  double by_features() const {
    const double n = static_cast<double>(tokens), s = static_cast<double>(student);
    const double t = static_cast<double>(teacher);
    return n * (1.5 * s * s + 2 * s * t + 0.5 * t * t);
  }
};

// Numbers between rows of so many, so that equal columns do not meet in one set of a cache.
template <class T>
int64_t apart(int64_t width) {
  constexpr int64_t kLine = 64 / sizeof(T);
  return ((width + kLine - 1) / kLine | 1) * kLine;
}

// Work memory of one image.
template <class T>
struct Work {
  ImageSizes sizes;
  bool features;
  int64_t tile, tiles;
  ProductBlocks blocks;
  Scratch<T> x, y, inverse, pull, xx, yx;
  Scratch<double> sums, squares, pulled, across;

  Work(const ImageSizes& n, bool features, bool gradients)
      : sizes(n),
        features(features),
        tile(KDOPS_BEST(anchor_tile<T>)(n.tokens)),
        tiles((n.tokens + tile - 1) / tile),
        blocks(product_blocks(n.student, n.teacher)),
        x(units(n.student)),
        y(units(n.teacher)),
        inverse(n.tokens),
        pull(gradients ? tiles * tile * n.student : 0),
        xx(features ? n.student * apart<T>(n.student) : 0),
        yx(features ? n.teacher * apart<T>(n.student) : 0),
        sums(std::max(tiles * tiles, features ? all_blocks() : 0)),
        squares(tiles * tiles),
        pulled(gradients ? n.tokens : 0),
        across(gradients ? n.tokens : 0) {}

  int64_t all_blocks() const { return blocks.student + blocks.mixed + blocks.teacher; }

 private:
  int64_t units(int64_t width) const {
    return std::max(tiles * tile * width, features ? sizes.tokens * apart<T>(width) : 0);
  }
};

// The two ways to run a step of `items` independent items.
struct OnOneThread {
  template <class Kernel, class Problem>
  void operator()(int64_t items, double, Kernel* kernel, const Problem& problem) const {
    kernel(problem, 0, items);
  }
};
struct OnAllThreads {
  template <class Kernel, class Problem>
  void operator()(int64_t items, double flops, Kernel* kernel, const Problem& problem) const {
    parallel_for(items, flops, kernel, problem);
  }
};

// body(begin, end, run) for all images: small ones an image a thread, others one after the other with
// the steps of each shared among the threads.
template <class Body>
void over_images(int64_t images, double flops, const Body& body) {
  if (images > 1 && flops < kSmallImage)
    parallel_for(images, flops,
                 [&](int64_t begin, int64_t end) { body(begin, end, OnOneThread{}); });
  else
    body(int64_t(0), images, OnAllThreads{});
}

// Image b of x (B, N, D).
template <class T>
Tokens<T> tokens_of(const Tensor& x, int64_t b) {
  return {pointer<T>(x) + b * x.stride(0), x.size(2), x.stride(1), x.stride(2)};
}

// What is known of an image: |G_S - G_T|^2, and whether float has digits for it and its gradient.
struct Anchored {
  double sum;
  bool exact, exact_gradient;
};

template <class T, class Run>
void units_of(const Anchoring<T>& p, const Run& run) {
  run(token_groups(p.tokens), 8.0 * static_cast<double>(kTokenGroup * (p.x.width + p.y.width)),
      KDOPS_BEST(anchor_units<T>), p);
}

// The gradient from the pull; whether it keeps its digits.
template <class T, class Run>
bool gradient_of(const Anchoring<T>& p, const Run& run) {
  if (p.gradient == nullptr) return true;
  run(token_groups(p.tokens), 16.0 * static_cast<double>(kTokenGroup * p.x.width),
      KDOPS_BEST(anchor_back<T>), p);
  const double across = ordered_sum(p.across, p.tokens);
  return !(across < kTooFewDigits * ordered_sum(p.pulled, p.tokens));
}

template <class T, class Run>
Anchored by_tiles(Anchoring<T>& p, Work<T>& work, const Run& run) {
  const int64_t width = p.student.width, tile = work.tile, tiles = work.tiles;
  p.x = in_panels(work.x.get(), width, tile);
  p.y = in_panels(work.y.get(), p.teacher.width, tile);
  p.pull = in_panels(p.gradient ? work.pull.get() : nullptr, width, tile);
  p.tiles = tiles;
  p.sums = work.sums.get();
  p.squares = work.squares.get();
  std::fill_n(p.sums, tiles * tiles, 0.0);
  std::fill_n(p.squares, tiles * tiles, 0.0);
  if (p.gradient) std::fill_n(work.pull.get(), tiles * tile * width, T(0));
  units_of(p, run);
  const double pair = static_cast<double>(tile * tile * (6 * width + 2 * p.teacher.width));
  for (p.round = 0; p.round < tiles; ++p.round)
    run(pairs_in_round(tiles, p.round), pair, KDOPS_BEST(anchor_pairs<T>), p);
  const double sum = ordered_sum(p.sums, tiles * tiles);
  const double squares = ordered_sum(p.squares, tiles * tiles);
  const bool exact = sum == 0 || !(sum < kTooFewDigits * squares);  // NaN is what it is
  return {sum, exact, gradient_of(p, run)};
}

// Through products of features; nothing where they cancel.
template <class T, class Run>
std::optional<Anchored> by_features(Anchoring<T>& p, Work<T>& work, const Run& run) {
  const int64_t width = p.student.width, others = p.teacher.width;
  p.x = by_rows(work.x.get(), width, apart<T>(width));
  p.y = by_rows(work.y.get(), others, apart<T>(others));
  p.pull = by_rows(p.gradient, width, width);
  p.xx = work.xx.get();
  p.yx = work.yx.get();
  p.products_row = apart<T>(width);
  p.sums = work.sums.get();
  units_of(p, run);
  const double block = 2.0 * static_cast<double>(kFeatureBlock * kFeatureBlock * p.tokens);
  run(work.all_blocks(), block, KDOPS_BEST(anchor_products<T>), p);
  const auto& blocks = work.blocks;
  const double own = ordered_sum(p.sums, blocks.student);
  const double mixed = ordered_sum(p.sums + blocks.student, blocks.mixed);
  const double other = ordered_sum(p.sums + blocks.student + blocks.mixed, blocks.teacher);
  const double sum = own - 2 * mixed + other;
  if (sum < kCancelled * (own + other)) return std::nullopt;  // NaN is not
  if (p.gradient != nullptr) {
    const double pull = 2.0 * static_cast<double>(kTokenBlock * width * (width + others));
    run((p.tokens + kTokenBlock - 1) / kTokenBlock, pull, KDOPS_BEST(anchor_pull<T>), p);
  }
  return Anchored{sum, true, gradient_of(p, run)};
}

template <class T, class Run>
Anchored anchored(Anchoring<T>& p, Work<T>& work, const Run& run) {
  p.inverse = work.inverse.get();
  p.pulled = work.pulled.get();
  p.across = work.across.get();
  std::optional<Anchored> found;
  if (work.features) found = by_features(p, work, run);
  return found ? *found : by_tiles(p, work, run);
}

// Rows `present` (count), or all when that is null, in double and by rows.
inline Tokens<double> widened(const Tokens<float>& x, const int64_t* present, int64_t count,
                              double* out) {
  for (int64_t i = 0; i < count; ++i)
    for (int64_t k = 0; k < x.width; ++k)
      out[i * x.width + k] =
          static_cast<double>(x.data[(present ? present[i] : i) * x.row + k * x.col]);
  return {out, x.width, x.width, 1};
}

// An image of floats in double: the sum, and the gradient in its place.
template <class Run>
double in_double(const Anchoring<float>& p, const ImageSizes& n, bool features, const Run& run) {
  Work<double> work(n, features, p.gradient != nullptr);
  Scratch<double> student(n.tokens * n.student), teacher(n.tokens * n.teacher);
  Scratch<double> gradient(p.gradient ? n.tokens * n.student : 0);
  Anchoring<double> wide{};
  wide.student = widened(p.student, nullptr, n.tokens, student.get());
  wide.teacher = widened(p.teacher, nullptr, n.tokens, teacher.get());
  wide.tokens = n.tokens;
  wide.negatives = p.negatives;
  wide.gradient = gradient.get();
  wide.factor = p.factor;
  const double sum = anchored(wide, work, run).sum;
  if (p.gradient != nullptr)
    for (int64_t i = 0; i < n.tokens * n.student; ++i)
      p.gradient[i] = static_cast<float>(gradient[i]);
  return sum;
}

// The image's sum, with as many digits as its numbers have, whether a gradient is wanted or not.
template <class T, class Run>
double sum_of_image(Anchoring<T> p, Work<T>& work, const Run& run) {
  const Anchored found = anchored(p, work, run);
  if constexpr (sizeof(T) == sizeof(float))
    if (!found.exact || !found.exact_gradient) {
      const double sum = in_double(p, work.sizes, work.features, run);
      return found.exact ? found.sum : sum;
    }
  return found.sum;
}

}  // namespace kdops::token_gram
