// What the glue hands to the kernels. Plain structs, no torch.
#pragma once

#include <cstdint>
#include <limits>

namespace kdops::similarity_kl {

inline constexpr int64_t kBlock = 32;  // rows that one item computes
// Columns of a panel: whole packs and whole register tiles of every instruction set.
inline constexpr int64_t kPanel = 48;
inline constexpr int64_t kTile = 5 * kPanel;  // columns of similarities that are held at once

inline int64_t padded(int64_t count) { return (count + kPanel - 1) / kPanel * kPanel; }

// The logit of a pair that does not count: finite, so that differences of two are zero.
template <class T>
inline constexpr T kExcluded = -std::numeric_limits<T>::max() / 4;

// What is compared: x, x / |x|, x / (|x| + 1e-7).
enum class Norm { none, unit, padded };

// x as it is compared is x * scale * unit; inverse is what a gradient is multiplied with.
struct RowFactors {
  double scale, unit, inverse;
};

// Rows as they were given, (batch, count, width) contiguous; of every batch entry `used` ones count,
// which lie at `places`. The other arrays have an entry for each of these.
template <class In>
struct Given {
  const In* data;
  int64_t count, width;
  const int64_t* used;    // (batch)
  const int64_t* places;  // (batch, count); null: all rows count
  RowFactors* factors;    // (batch, count)
  double* longest;        // (batch), the largest norm of a compared row
};

// Rows as they are compared, minus a centre; null where nobody asks for it.
template <class T>
struct Placed {
  T* rows;    // (batch, count, width)
  T* panels;  // (batch, padded(count) / kPanel, width, kPanel), zero behind the last row
  T* bias;  // (batch, padded(count)): rate <row, centre>, kExcluded behind the last: they are keys
  T* lse;   // (batch, padded(count)), where they meet keys: log2 of a row's sum of exponentials; in
            // float that of the student is the teacher's minus its own
  int64_t count, width;
  const int64_t* used;
};

// Numbers of the products of a block with `keys` keys.
inline int64_t products_of(int64_t keys) {
  return (padded(keys) + kTile - 1) / kTile * kTile * kBlock;
}

// One network: rows and the keys they meet, which may be the same.
template <class T>
struct Network {
  Placed<T> rows, keys;
  double* centres;  // (batch, width)
  T* kept;          // (batch, blocks, products_of(keys)), the first pass's for the second, or null
  double rate;      // a logit, in units of log2, is rate <row, key>
};

template <class In, class T>
struct Placing {
  Given<In> rows, keys;
  Network<T> to;
  bool same;  // keys are the rows
};

template <class T>
struct Statistics {
  Network<T> network;
  bool without_self;
  double* logs;    // (batch, count): log2 of the sums of the exponentials
  int64_t blocks;  // in a batch entry
};

// Whose similarities a gradient gathers: those of its own distributions, of those it is a key of.
enum class Sides { rows, keys, both };

template <class In, class T>
struct Pull {
  Network<T> student, teacher;
  Given<In> given;  // of the rows whose gradient is taken
  Norm norm;
  bool without_self, gradients;
  double factor;   // of the gradient
  In* out;         // (batch, count, width)
  double* losses;  // (batch, blocks), in nats; null for Sides::keys
  Sides sides;
  int64_t blocks;
};

}  // namespace kdops::similarity_kl
