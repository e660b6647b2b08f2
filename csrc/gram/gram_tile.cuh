// The tile that every product of the gram room is made of, and the steps of a block that computes
// one: where it works, how a stage of both operands travels, how it is multiplied, joined, written.
// A block computes a tile of rows x columns; its threads form kGroups groups that share the depth,
// each thread holds a kReg x kReg register tile. Stages of kDepth positions go through shared
// memory, double buffered: the next stage is on its way in registers while this one is multiplied.
// The kernels: gram_kernels.cuh, loss_kernels.cuh.
#pragma once

#include "common/gpu/lane.cuh"

namespace kdops::gram::gpu {

// The compile-time numbers of a tile; threads per group: (rows / reg) * (cols / reg).
template <int kRows_, int kCols_, int kReg_, int kDepth_, int kGroups_>
struct GramTile {
  static constexpr int kRows = kRows_, kCols = kCols_, kReg = kReg_;
  static constexpr int kDepth = kDepth_, kGroups = kGroups_;
  static constexpr int kGroupCols = kCols / kReg;
  static constexpr int kGroupThreads = kRows / kReg * kGroupCols;
  static constexpr int kThreads = kGroupThreads * kGroups;
  static constexpr int kPitch = kRows + kCols + 4;  // 4 mod 16 banks: see gram_first
  static_assert(kReg % 4 == 0 && kDepth % 8 == 0 && kDepth % kGroups == 0);
  static_assert(kRows * kDepth % kThreads == 0 && kCols * kDepth % kThreads == 0);
  static_assert(kThreads % kWarp == 0);
  static_assert(2 * kDepth * kPitch >= kRows * kCols * kGroups / 2);  // see gram_join_groups
};
using GramTile16 = GramTile<16, 16, 4, 64, 16>;  // few channels, long depth: 256 threads
using GramTile32 = GramTile<32, 32, 4, 16, 2>;   // 128 threads
using GramTile64 = GramTile<64, 64, 8, 16, 2>;   // 128 threads

// Strides in elements. Inside one item 32 bits hold every offset (gram_launch.cuh checks it).
template <class T>
struct GramOperand {
  const T* data;
  int64_t batch;
  unsigned row, depth;
};

template <class T>
struct GramProblem {
  GramOperand<T> a, b;
  int rows, cols, depth;
  int col_tiles, tiles;     // per item: all tiles, or the upper triangle if symmetric
  int splits, split_depth;  // a multiple of the tile's kDepth
  bool symmetric;           // a is b: tiles below the diagonal are mirrored
  bool add_transpose;       // a[i, k] + a[k, i] stands in for a[i, k]
  Accum<T> scale;
  T* out;              // (B, rows, cols), when splits == 1
  Accum<T>* partial;   // (splits, B, rows, cols) otherwise, not scaled
  int64_t split_size;  // B * rows * cols
};

// Where a block works: first row and column of its tile, its item and its part of the depth.
struct GramPlace {
  int row, col, split, begin, end;
  int64_t item;
};

template <class Tile, class T>
KDOPS_DEVICE GramPlace gram_place(const GramProblem<T>& p) {
  const int block = static_cast<int>(blockIdx.x), part = block / p.tiles;
  int tile = block % p.tiles, row = 0;
  if (p.symmetric) {
    for (; tile >= p.col_tiles - row; ++row) tile -= p.col_tiles - row;
    tile += row;  // the column: on the diagonal or right of it
  } else {
    row = tile / p.col_tiles;
    tile %= p.col_tiles;
  }
  const int split = part % p.splits, begin = split * p.split_depth;
  return {row * Tile::kRows, tile * Tile::kCols, split, begin, min(p.depth, begin + p.split_depth),
          part / p.splits};
}

// Which elements of a (channels x depth) stage a thread moves: the first one, and from there
// element i at a distance that is the same for all threads (so that it costs no registers). A warp
// reads whole 32-byte sectors and writes shared memory without bank conflicts: 8 neighbours in
// depth by 4 channels (banks 4 k + c), or consecutive channels where those are adjacent in memory.
struct GramSpot {
  int channel, depth;
};
template <int kChannels>
KDOPS_DEVICE GramSpot gram_first(bool adjacent) {
  const int t = static_cast<int>(threadIdx.x);
  if (adjacent) return {t % kChannels, t / kChannels};
  return {t / 8 % kChannels, t / (8 * kChannels) * 8 + t % 8};
}
template <int kChannels, int kThreads>
KDOPS_DEVICE GramSpot gram_distance(int i, bool adjacent) {
  constexpr int kBand = 8 * kChannels;  // elements of 8 neighbours in depth
  static_assert(kThreads % kBand == 0 || kBand % kThreads == 0);
  if (adjacent) return {0, i * (kThreads / kChannels)};
  if constexpr (kThreads >= kBand)
    return {0, i * (kThreads / kBand) * 8};
  else
    return {i % (kBand / kThreads) * (kThreads / 8), i / (kBand / kThreads) * 8};
}

template <class T>
KDOPS_DEVICE bool channels_adjacent(const GramOperand<T>& x) {
  return x.row == 1 && x.depth != 1;
}

// Global memory (x.data: the item) -> registers; zero outside the matrix.
template <int kChannels, int kThreads, int kCount, class T>
KDOPS_DEVICE void gram_fetch(const GramOperand<T>& x, bool add_transpose, int first, int channels,
                             int depth, int depth_end, Accum<T> (&values)[kCount]) {
  const bool adjacent = channels_adjacent(x);
  const GramSpot start = gram_first<kChannels>(adjacent);
  const int c = first + start.channel, k = depth + start.depth;
  // unsigned: may wrap past the end of the matrix, where it is not used
  const unsigned at = c * x.row + k * x.depth, mirror = k * x.row + c * x.depth;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const GramSpot d = gram_distance<kChannels, kThreads>(i, adjacent);
    values[i] = Accum<T>(0);
    if (c + d.channel >= channels || k + d.depth >= depth_end) continue;
    values[i] = to_accum(x.data[at + (d.channel * x.row + d.depth * x.depth)]);
    if (add_transpose)
      values[i] += to_accum(x.data[mirror + (d.depth * x.row + d.channel * x.depth)]);
  }
}

// Registers -> shared memory; `stage` points at the operand's first column.
template <int kChannels, int kThreads, int kPitch, int kCount, class A>
KDOPS_DEVICE void gram_stage(A* stage, bool adjacent, const A (&values)[kCount]) {
  const GramSpot start = gram_first<kChannels>(adjacent);
  stage += start.depth * kPitch + start.channel;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const GramSpot d = gram_distance<kChannels, kThreads>(i, adjacent);
    stage[d.depth * kPitch + d.channel] = values[i];
  }
}

// The kReg values of this thread: 16-byte pieces, a thread's pieces kTile / (kReg / n) apart so
// that neighbouring threads read neighbouring pieces.
template <int kReg, int kSpan, class A>
KDOPS_DEVICE void gram_read(const A* line, int thread, A (&values)[kReg]) {
  constexpr int n = 16 / sizeof(A);
#pragma unroll
  for (int piece = 0; piece < kReg / n; ++piece) {
    const auto v = *reinterpret_cast<const Vec<A, n>*>(line + piece * kSpan * n + thread * n);
#pragma unroll
    for (int i = 0; i < n; ++i) values[piece * n + i] = v.at[i];
  }
}
// Which row (column) of the tile register r of a thread is: the inverse of gram_read.
template <int kSpan, class A>
KDOPS_DEVICE int gram_register(int thread, int r) {
  constexpr int n = 16 / sizeof(A);
  return r / n * kSpan * n + thread * n + r % n;
}

// This thread's share of one stage: its group takes every depth of its slice.
template <class Tile, class A>
KDOPS_DEVICE void gram_multiply(const A* stage, A (&acc)[Tile::kReg][Tile::kReg]) {
  constexpr int kSlice = Tile::kDepth / Tile::kGroups;
  const int thread = static_cast<int>(threadIdx.x) % Tile::kGroupThreads;
  const int group = static_cast<int>(threadIdx.x) / Tile::kGroupThreads;
  const A* line = stage + group * kSlice * Tile::kPitch;
#pragma unroll
  for (int k = 0; k < kSlice; ++k, line += Tile::kPitch) {
    A a[Tile::kReg], b[Tile::kReg];
    gram_read<Tile::kReg, Tile::kRows / Tile::kReg>(line, thread / Tile::kGroupCols, a);
    gram_read<Tile::kReg, Tile::kGroupCols>(line + Tile::kRows, thread % Tile::kGroupCols, b);
#pragma unroll
    for (int i = 0; i < Tile::kReg; ++i)
#pragma unroll
      for (int j = 0; j < Tile::kReg; ++j) acc[i][j] = fma(a[i], b[j], acc[i][j]);
  }
}

// Adds the groups' sums into group 0, halving the number of groups, through shared memory.
template <class Tile, class A>
KDOPS_DEVICE void gram_join_groups(A* pool, A (&acc)[Tile::kReg][Tile::kReg]) {
  const int group = static_cast<int>(threadIdx.x) / Tile::kGroupThreads;
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int half = Tile::kGroups / 2; half > 0; half /= 2) {
    const int half_threads = half * Tile::kGroupThreads;
    __syncthreads();  // the pool's last readers are done
    if (group >= half && group < 2 * half) {
#pragma unroll
      for (int r = 0; r < Tile::kReg * Tile::kReg; ++r)
        pool[r * half_threads + thread - half_threads] = acc[r / Tile::kReg][r % Tile::kReg];
    }
    __syncthreads();
    if (group < half) {
#pragma unroll
      for (int r = 0; r < Tile::kReg * Tile::kReg; ++r)
        acc[r / Tile::kReg][r % Tile::kReg] += pool[r * half_threads + thread];
    }
  }
}

// body(row, col, value) for the entries of the tile that this thread of group 0 holds; of a
// symmetric result those on the diagonal and right of it.
template <class Tile, class T, class Body>
KDOPS_DEVICE void gram_for_entries(const GramProblem<T>& p, const GramPlace& place,
                                   const Accum<T> (&acc)[Tile::kReg][Tile::kReg],
                                   const Body& body) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= Tile::kGroupThreads) return;
#pragma unroll
  for (int i = 0; i < Tile::kReg; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::kReg; ++j) {
      const int row = place.row + gram_register<Tile::kRows / Tile::kReg, Accum<T>>(
                                      thread / Tile::kGroupCols, i);
      const int col =
          place.col + gram_register<Tile::kGroupCols, Accum<T>>(thread % Tile::kGroupCols, j);
      if (row >= p.rows || col >= p.cols) continue;
      if (p.symmetric && col < row) continue;  // the mirror image of (col, row)
      body(row, col, acc[i][j]);
    }
  }
}

// Group 0 writes the tile, and its mirror image if the result is symmetric.
template <class Tile, class T>
KDOPS_DEVICE void gram_write(const GramProblem<T>& p, const GramPlace& place,
                             const Accum<T> (&acc)[Tile::kReg][Tile::kReg]) {
  const int64_t base = place.item * p.rows * p.cols;
  T* out = p.out + base;
  Accum<T>* partial = p.partial + place.split * p.split_size + base;
  gram_for_entries<Tile>(p, place, acc, [&](int row, int col, Accum<T> value) {
    const int at = row * p.cols + col, mirror = col * p.cols + row;
    if (p.splits > 1) {
      partial[at] = value;
      if (p.symmetric) partial[mirror] = value;
    } else {
      out[at] = from_accum<T>(p.scale * value);
      if (p.symmetric) out[mirror] = out[at];
    }
  });
}

// Where a stage comes from: its operands (data: the block's item), its depth in them, their end.
template <class T>
struct GramSource {
  GramOperand<T> a, b;
  int depth, end;
};
template <class T>
KDOPS_DEVICE GramOperand<T> gram_item(const GramOperand<T>& x, const GramPlace& place) {
  return {x.data + place.item * x.batch, 0, x.row, x.depth};
}

// acc += the products of the stages in begin..end; every group adds up its own share. source(k) is
// where the stage at k comes from, reached(k) runs before that stage is multiplied.
template <class Tile, class T, class Source, class Reached>
KDOPS_DEVICE void gram_accumulate(const GramProblem<T>& p, const GramPlace& place,
                                  const Source& source, const Reached& reached,
                                  Accum<T> (&stages)[2][Tile::kDepth * Tile::kPitch],
                                  Accum<T> (&acc)[Tile::kReg][Tile::kReg]) {
  constexpr int kThreads = Tile::kThreads, kPitch = Tile::kPitch;
  Accum<T> next_a[Tile::kRows * Tile::kDepth / kThreads];
  Accum<T> next_b[Tile::kCols * Tile::kDepth / kThreads];
  const auto fetch = [&](int k) {
    const GramSource<T> s = source(k);
    gram_fetch<Tile::kRows, kThreads>(s.a, p.add_transpose, place.row, p.rows, s.depth, s.end,
                                      next_a);
    gram_fetch<Tile::kCols, kThreads>(s.b, false, place.col, p.cols, s.depth, s.end, next_b);
  };
  const auto put = [&](Accum<T>* stage, int k) {
    const GramSource<T> s = source(k);
    gram_stage<Tile::kRows, kThreads, kPitch>(stage, channels_adjacent(s.a), next_a);
    gram_stage<Tile::kCols, kThreads, kPitch>(stage + Tile::kRows, channels_adjacent(s.b), next_b);
  };
  fetch(place.begin);
  put(stages[0], place.begin);
  int current = 0;
  for (int k = place.begin; k < place.end; k += Tile::kDepth, current ^= 1) {
    const bool more = k + Tile::kDepth < place.end;
    __syncthreads();  // this stage is complete; the other one's readers are done
    if (more) fetch(k + Tile::kDepth);
    reached(k);
    gram_multiply<Tile>(stages[current], acc);
    if (more) put(stages[current ^ 1], k + Tile::kDepth);
  }
}

}  // namespace kdops::gram::gpu
