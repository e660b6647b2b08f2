// Host side of gram_kernels.cuh and loss_kernels.cuh, shared by the launches (gram_launch.cuh,
// loss_cuda.cu) and the simulator's tests: which tile serves a problem, and into how many parts the
// depth is split so that a small batch fills the GPU.
#pragma once

#include <algorithm>

#include "gram/gram_kernels.cuh"
#include "gram/loss_kernels.cuh"

namespace kdops::gram::gpu {

// A part of the depth shorter than this many stages is not worth a partial result.
inline constexpr int kGramStagesPerSplit = 4;
// The depth that a block adds up at most: a sum in float loses digits with its length.
inline constexpr int kGramMostDepth = 4096;
// Blocks that keep one multiprocessor busy.
inline constexpr int64_t kGramBlocksPerMultiprocessor = 4;

// body(Tile{}) with the tile for results of rows x cols.
template <class T, class Body>
void for_gram_tile(int rows, int cols, const Body& body) {
  if (std::max(rows, cols) <= 16) return body(GramTile16{});
  // an 8 x 8 register tile of doubles would spill
  if (std::min(rows, cols) <= 32 || sizeof(T) == 8) return body(GramTile32{});
  if constexpr (sizeof(T) < 8) body(GramTile64{});
}

// Fills in the tiling and the splits of `items` products; returns the number of blocks.
template <class Tile, class T>
int64_t gram_plan(GramProblem<T>& p, int64_t items, int64_t multiprocessors) {
  const int row_tiles = (p.rows + Tile::kRows - 1) / Tile::kRows;
  p.col_tiles = (p.cols + Tile::kCols - 1) / Tile::kCols;
  p.tiles = p.symmetric ? row_tiles * (row_tiles + 1) / 2 : row_tiles * p.col_tiles;
  p.split_size = items * p.rows * p.cols;
  const int stages = (p.depth + Tile::kDepth - 1) / Tile::kDepth;
  const int64_t wanted = kGramBlocksPerMultiprocessor * multiprocessors / (items * p.tiles);
  const int least = (p.depth + kGramMostDepth - 1) / kGramMostDepth;
  const auto splits = static_cast<int>(std::clamp<int64_t>(
      wanted, std::max(1, least), std::max({1, least, stages / kGramStagesPerSplit})));
  p.split_depth = std::max(1, (stages + splits - 1) / splits) * Tile::kDepth;
  p.splits = std::max(1, (p.depth + p.split_depth - 1) / p.split_depth);
  return items * p.splits * p.tiles;
}

// The same for a difference of two products. A part holds positions of one side only.
template <class Tile, class T>
int64_t gram_difference_plan(GramDifference<T>& q, int64_t items, int64_t multiprocessors) {
  const auto stages = [](int depth) { return (depth + Tile::kDepth - 1) / Tile::kDepth; };
  const int student = stages(q.student_depth), teacher = stages(q.teacher_depth);
  GramProblem<T>& p = q.product;
  q.turn = student * Tile::kDepth;
  p.depth = q.turn + teacher * Tile::kDepth;
  const int64_t blocks = gram_plan<Tile>(p, items, multiprocessors);
  q.student_splits = 1;
  if (p.splits == 1) return blocks;
  const int part = p.split_depth / Tile::kDepth;
  q.student_splits = (student + part - 1) / part;
  p.splits = q.student_splits + (teacher + part - 1) / part;
  return items * p.splits * p.tiles;
}

}  // namespace kdops::gram::gpu
