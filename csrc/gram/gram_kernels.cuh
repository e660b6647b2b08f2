// One batched product serves gram and its backward:
//   out[b, i, j] = scale * sum_k a[b, i, k] * b[b, j, k]
// with free strides, so that i, j, k are channels and positions in whatever order the op needs
// (gram: k = positions; backward: k = channels of the cotangent). A block computes a tile of rows x
// columns; its threads form kGroups groups that share the depth, each thread holds a kReg x kReg
// register tile. Stages of kDepth positions go through shared memory, double buffered: the next
// stage is on its way in registers while this one is multiplied. The depth may be split over
// `splits` blocks; gram_reduce_kernel then adds their partial sums, always in the same order.
// Planned by gram_plan.cuh, launched by gram_cuda.cu.
#pragma once

#include "common/lane.cuh"

namespace kdops::gpu {

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
};
using GramTile16 = GramTile<16, 16, 4, 64, 16>;  // few channels, long depth: 256 threads
using GramTile32 = GramTile<32, 32, 4, 16, 2>;   // 128 threads
using GramTile64 = GramTile<64, 64, 8, 16, 2>;   // 128 threads

// Strides in elements. Inside one item 32 bits hold every offset (gram_cuda.cu checks it).
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

// Global memory -> registers; zero outside the matrix.
template <int kChannels, int kThreads, int kCount, class T>
KDOPS_DEVICE void gram_fetch(const GramOperand<T>& x, const T* item, bool add_transpose, int first,
                             int channels, int depth, int depth_end, Accum<T> (&values)[kCount]) {
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
    values[i] = to_accum(item[at + (d.channel * x.row + d.depth * x.depth)]);
    if (add_transpose)
      values[i] += to_accum(item[mirror + (d.depth * x.row + d.channel * x.depth)]);
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

// Group 0 writes the tile, and its mirror image if the result is symmetric.
template <class Tile, class T>
KDOPS_DEVICE void gram_write(const GramProblem<T>& p, const GramPlace& place,
                             const Accum<T> (&acc)[Tile::kReg][Tile::kReg]) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= Tile::kGroupThreads) return;
  const int64_t base = place.item * p.rows * p.cols;
  T* out = p.out + base;
  Accum<T>* partial = p.partial + place.split * p.split_size + base;
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
      const int at = row * p.cols + col, mirror = col * p.cols + row;
      if (p.splits > 1) {
        partial[at] = acc[i][j];
        if (p.symmetric) partial[mirror] = acc[i][j];
      } else {
        out[at] = from_accum<T>(p.scale * acc[i][j]);
        if (p.symmetric) out[mirror] = out[at];
      }
    }
  }
}

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kThreads) gram_product_kernel(GramProblem<T> p) {
  using A = Accum<T>;
  constexpr int kThreads = Tile::kThreads, kPitch = Tile::kPitch;
  constexpr int kA = Tile::kRows * Tile::kDepth / kThreads;
  constexpr int kB = Tile::kCols * Tile::kDepth / kThreads;
  KDOPS_SHARED(A, stages, [2][Tile::kDepth * kPitch]);
  static_assert(2 * Tile::kDepth * kPitch >= Tile::kRows * Tile::kCols * Tile::kGroups / 2);

  const GramPlace place = gram_place<Tile>(p);
  const T* item_a = p.a.data + place.item * p.a.batch;
  const T* item_b = p.b.data + place.item * p.b.batch;
  const bool adjacent_a = channels_adjacent(p.a), adjacent_b = channels_adjacent(p.b);
  A acc[Tile::kReg][Tile::kReg] = {}, next_a[kA], next_b[kB];
  const auto fetch = [&](int k) {
    gram_fetch<Tile::kRows, kThreads>(p.a, item_a, p.add_transpose, place.row, p.rows, k, place.end,
                                      next_a);
    gram_fetch<Tile::kCols, kThreads>(p.b, item_b, false, place.col, p.cols, k, place.end, next_b);
  };
  const auto put = [&](A* stage) {
    gram_stage<Tile::kRows, kThreads, kPitch>(stage, adjacent_a, next_a);
    gram_stage<Tile::kCols, kThreads, kPitch>(stage + Tile::kRows, adjacent_b, next_b);
  };
  fetch(place.begin);
  put(stages[0]);
  int current = 0;
  for (int k = place.begin; k < place.end; k += Tile::kDepth, current ^= 1) {
    const bool more = k + Tile::kDepth < place.end;
    __syncthreads();  // this stage is complete; the other one's readers are done
    if (more) fetch(k + Tile::kDepth);
    gram_multiply<Tile>(stages[current], acc);
    if (more) put(stages[current ^ 1]);
  }
  gram_join_groups<Tile>(&stages[0][0], acc);
  gram_write<Tile>(p, place, acc);
}

// out = scale * sum over the splits, element by element, in ascending order.
template <class T>
__global__ void __launch_bounds__(256)
    gram_reduce_kernel(const Accum<T>* __restrict__ partial, T* __restrict__ out, int64_t count,
                       int64_t splits, Accum<T> scale) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  Accum<T> sum = partial[i];
  for (int64_t s = 1; s < splits; ++s) sum += partial[s * count + i];
  out[i] = from_accum<T>(scale * sum);
}

}  // namespace kdops::gpu
