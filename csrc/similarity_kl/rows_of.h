// Tensors to the rows that the kernels see, and the memory these need. Callers: the glue of the room.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "common/simd/scratch.h"
#include "common/torch/check.h"
#include "common/torch/tensors.h"
#include "similarity_kl/problem.h"

namespace kdops::similarity_kl {

// Which rows of (batch, count) count.
class Counted {
 public:
  Counted(const std::optional<Tensor>& mask, int64_t batch, int64_t count)
      : used_(static_cast<size_t>(batch), count), total_(batch * count) {
    if (!mask) return;
    const Tensor dense = contiguous_of(*mask);
    const bool* marks = pointer<bool>(dense);
    places_.assign(static_cast<size_t>(batch * count), 0);
    total_ = 0;
    for (int64_t b = 0; b < batch; ++b) {
      int64_t* places = places_.data() + b * count;
      int64_t used = 0;
      for (int64_t i = 0; i < count; ++i)
        if (marks[b * count + i]) places[used++] = i;
      used_[static_cast<size_t>(b)] = used;
      total_ += used;
    }
  }
  const int64_t* used() const { return used_.data(); }
  const int64_t* places() const { return places_.empty() ? nullptr : places_.data(); }
  int64_t total() const { return total_; }

 private:
  std::vector<int64_t> used_, places_;
  int64_t total_;
};

// A contiguous input (batch, count, width) and the factors of its rows.
template <class In>
class GivenRows {
 public:
  GivenRows(const Tensor& rows, const Counted& counted)
      : tensor_(contiguous_of(rows)),
        factors_(rows.size(0) * rows.size(1)),
        longest_(rows.size(0)),
        given_{pointer<In>(tensor_), rows.size(1),   rows.size(2),  counted.used(),
               counted.places(),     factors_.get(), longest_.get()} {}
  const Given<In>& get() const { return given_; }
  double longest() const {
    double longest = 0;
    for (int64_t b = 0; b < tensor_.size(0); ++b) longest = std::max(longest, longest_[b]);
    return longest;
  }

 private:
  Tensor tensor_;
  Scratch<RowFactors> factors_;
  Scratch<double> longest_;
  Given<In> given_;
};

// Room for placed rows. keys: others meet them; meets: they meet keys.
template <class T>
class PlacedRows {
 public:
  template <class In>
  PlacedRows(const Given<In>& from, int64_t batch, bool columns, bool keys, bool meets)
      : rows_(batch * from.count * from.width),
        panels_(columns ? batch * padded(from.count) * from.width : 0),
        bias_(keys ? batch * padded(from.count) : 0),
        lse_(meets ? batch * padded(from.count) : 0),
        placed_{rows_.get(), panels_.get(), bias_.get(), lse_.get(),
                from.count,  from.width,    from.used} {}
  const Placed<T>& get() const { return placed_; }

 private:
  Scratch<T> rows_, panels_, bias_, lse_;
  Placed<T> placed_;
};

}  // namespace kdops::similarity_kl
