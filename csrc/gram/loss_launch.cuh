// Launches of the fused Gram losses (loss_kernels.cuh, positions_kernels.cuh): loss and cotangents
// of maps that are given as operands, so that nst_loss can read its maps the other way round.
// Included by loss_cuda.cu, after common/torch/stream.h. Nothing here waits for the GPU.
#pragma once

#include "gram/gram_launch.cuh"
#include "gram/loss_check.h"
#include "gram/positions_kernels.cuh"

namespace kdops::gram {

// x1, y1 (rows, positions) and x2, y2 (cols, positions) per item.
template <class T>
struct LossOperands {
  GramOperand<T> x1, x2, y1, y2;
  int64_t items, rows, cols, student_length, teacher_length;
  bool turned;  // in memory rows are neighbours: cotangents are (B, positions, rows)
};

template <class T>
GramOperand<T> turn(GramOperand<T> x) {
  return {x.data, x.batch, x.depth, x.row};
}

template <class T>
class LossLaunch {
 public:
  LossLaunch(const char* op, const OnDevice& device, const Tensor& like,
             const LossOperands<T>& maps, const LossOptions& options)
      : op_(op), device_(device), like_(like), maps_(maps), o_(options) {}

  // loss (0-d); g1, g2: cotangents, not touched unless options.gradients (g2: nor if symmetric).
  void run(const Tensor& loss, const Tensor& g1, const Tensor& g2) const {
    if (o_.positions)
      by_positions(loss, g1, g2);
    else
      by_channels(loss, g1, g2);
  }

 private:
  Tensor numbers(int64_t count) const { return empty_for(like_, {count}); }
  Tensor losses(int64_t count) const { return empty_for(like_, {count}, ScalarType::Double); }

  void total(const std::optional<Tensor>& losses, double coefficient, const Tensor& loss) const {
    gpu::gram_total_kernel<T><<<1, gpu::kGramLossThreads, 0, device_.stream()>>>(
        losses ? pointer<double>(*losses) : nullptr, losses ? losses->numel() : 0, coefficient,
        pointer<T>(loss));
    check_launch(op_);
  }

  // g (B, rows, positions) = scale * a bT, or the transposed one; a + aT for a with add_transpose.
  void cotangent(const Tensor& g, GramOperand<T> a, GramOperand<T> b, int64_t depth, double scale,
                 bool add_transpose = false) const {
    if (maps_.turned) std::swap(a, b);
    launch_product<T>(
        device_, op_, g,
        {.a = a, .b = b, .depth = depth, .scale = scale, .add_transpose = add_transpose});
  }

  void by_channels(const Tensor& loss, const Tensor& g1, const Tensor& g2) const {
    const int64_t entries = maps_.rows * maps_.cols;
    const int64_t depth = maps_.student_length + maps_.teacher_length;  // and a stage's padding
    STD_TORCH_CHECK(entries < INT32_MAX && depth < INT32_MAX - 256, op_, ": matrices of ",
                    maps_.rows, " x ", maps_.cols, " or ", depth, " positions are too large");
    GramOperand<T> d{nullptr, entries, static_cast<unsigned>(maps_.cols), 1};
    std::optional<Tensor> parts, sums;
    if (maps_.items * entries > 0) {
      difference(parts, sums);
      if (parts) d.data = pointer<T>(*parts);
    }
    total(sums, o_.coefficient, loss);
    if (!o_.gradients) return;
    // the pull of squares is 2 coefficient D, as symmetric as D; the one of columns is not
    const bool mirrored = o_.symmetric && o_.columns;
    const double pull = o_.columns ? 1 : (o_.symmetric ? 4 : 2) * o_.coefficient;
    cotangent(g1, d, turn(maps_.x2), maps_.cols, pull * o_.scale_s, mirrored);
    if (!o_.symmetric) cotangent(g2, turn(d), turn(maps_.x1), maps_.rows, pull * o_.scale_s);
  }

  // parts: D, or its pull, first; absent if nobody needs it. sums: the loss in pieces.
  void difference(std::optional<Tensor>& parts, std::optional<Tensor>& sums) const {
    gpu::GramDifference<T> q{};
    GramProblem<T>& p = q.product;
    p.a = maps_.x1, p.b = maps_.x2, q.y1 = maps_.y1, q.y2 = maps_.y2;
    p.rows = static_cast<int>(maps_.rows), p.cols = static_cast<int>(maps_.cols);
    p.symmetric = o_.symmetric, p.scale = 1;
    q.student_depth = static_cast<int>(maps_.student_length);
    q.teacher_depth = static_cast<int>(maps_.teacher_length);
    q.scale_s = static_cast<T>(o_.scale_s), q.scale_t = static_cast<T>(o_.scale_t);
    gpu::for_gram_tile<T>(p.rows, p.cols, [&](auto tile) {
      using Tile = decltype(tile);
      const int64_t blocks =
          gpu::gram_difference_plan<Tile>(q, maps_.items, device_.multiprocessors());
      const bool direct = p.splits == 1 && !o_.columns;
      if (!direct || o_.gradients) parts = numbers(p.splits * p.split_size);
      if (direct) sums = losses(blocks);
      p.out = p.partial = parts ? pointer<T>(*parts) : nullptr;
      q.losses = direct ? pointer<double>(*sums) : nullptr;
      gpu::gram_difference_kernel<T, Tile>
          <<<grid_of(op_, blocks), Tile::kThreads, 0, device_.stream()>>>(q);
    });
    check_launch(op_);
    if (!sums) join_parts(q, sums);
  }

  void join_parts(const gpu::GramDifference<T>& q, std::optional<Tensor>& sums) const {
    const GramProblem<T>& p = q.product;
    const int64_t col_blocks = (maps_.cols + kWarp - 1) / kWarp;
    const int64_t blocks = o_.columns
                               ? maps_.items * col_blocks
                               : (p.split_size + gpu::kGramLossThreads - 1) / gpu::kGramLossThreads;
    sums = losses(blocks);
    const dim3 grid = grid_of(op_, blocks);
    if (o_.columns) {
      const gpu::GramColumns<T> columns{p.out,        p.rows,
                                        p.cols,       static_cast<int>(col_blocks),
                                        p.split_size, q.student_splits,
                                        p.splits,     static_cast<T>(o_.coefficient),
                                        o_.gradients, pointer<double>(*sums)};
      gpu::gram_columns_kernel<T><<<grid, gpu::kGramLossThreads, 0, device_.stream()>>>(columns);
    } else {
      gpu::gram_squares_kernel<T><<<grid, gpu::kGramLossThreads, 0, device_.stream()>>>(
          p.out, p.split_size, q.student_splits, p.splits, o_.gradients, pointer<double>(*sums));
    }
    check_launch(op_);
  }

  // P or Q, what it was multiplied by, and its rows (2 positions, channels) as an operand.
  struct Stack {
    Tensor memory, tops;
    GramOperand<T> rows;
  };
  Stack stack(const GramOperand<T>& x, const GramOperand<T>& y, int64_t channels,
              bool difference_first) const {
    const int64_t length = maps_.student_length, size = channels * length;
    const int64_t pitch = maps_.turned ? channels : 2 * length;
    const Tensor memory = numbers(2 * maps_.items * size);
    const Tensor tops = numbers(maps_.items * gpu::kTopParts);
    gpu::GramStack<T> q{maps_.turned ? turn(x) : x,
                        maps_.turned ? turn(y) : y,
                        maps_.items * size,
                        static_cast<int>(maps_.turned ? length : channels),
                        static_cast<int>(maps_.turned ? channels : length),
                        pitch,
                        maps_.turned ? size : length,
                        difference_first,
                        pointer<T>(tops),
                        pointer<T>(memory)};
    if (maps_.items > 0) {
      gpu::gram_tops_kernel<T>
          <<<grid_of(op_, tops.numel()), gpu::kPositionThreads, 0, device_.stream()>>>(q);
      check_launch(op_);
    }
    const int64_t blocks = (q.count + gpu::kPositionThreads - 1) / gpu::kPositionThreads;
    if (blocks > 0) {
      gpu::gram_stack_kernel<T>
          <<<grid_of(op_, blocks), gpu::kPositionThreads, 0, device_.stream()>>>(q);
      check_launch(op_);
    }
    const GramOperand<T> slow{pointer<T>(memory), 2 * size, static_cast<unsigned>(pitch), 1};
    return {memory, tops, maps_.turned ? slow : turn(slow)};
  }

  void by_positions(const Tensor& loss, const Tensor& g1, const Tensor& g2) const {
    const int64_t length = maps_.student_length, side = 2 * length, square = side * side;
    STD_TORCH_CHECK(square < INT32_MAX, op_,
                    ": the route by positions takes at most 23170 of them");
    const Stack p = stack(maps_.x1, maps_.y1, maps_.rows, true);
    const Stack q = stack(maps_.x2, maps_.y2, maps_.cols, false);
    const Tensor a = empty_for(like_, {maps_.items, side, side});
    const Tensor b = empty_for(like_, {maps_.items, side, side});
    launch_product<T>(device_, op_, a,
                      {.a = p.rows, .b = p.rows, .depth = maps_.rows, .symmetric = true});
    launch_product<T>(device_, op_, b,
                      {.a = q.rows, .b = q.rows, .depth = maps_.cols, .symmetric = true});
    std::optional<Tensor> sums;
    if (maps_.items > 0) {
      sums = losses(maps_.items);
      gpu::gram_inner_kernel<T>
          <<<grid_of(op_, maps_.items), gpu::kPositionThreads, 0, device_.stream()>>>(
              pointer<T>(a), pointer<T>(b), pointer<T>(p.tops), pointer<T>(q.tops),
              static_cast<int>(length), pointer<double>(*sums));
      check_launch(op_);
    }
    const double scale = o_.coefficient * o_.scale_s * o_.scale_s;
    total(sums, scale, loss);
    if (!o_.gradients) return;
    const auto pitch = static_cast<unsigned>(side);
    cotangent(g1, turn(p.rows), {pointer<T>(b), square, 1, pitch}, side,
              scale * (o_.symmetric ? 4 : 2));
    if (!o_.symmetric)
      cotangent(g2, turn(q.rows), {pointer<T>(a), square, 1, pitch}, side, 2 * scale);
  }

  const char* op_;
  const OnDevice& device_;
  const Tensor& like_;
  const LossOperands<T>& maps_;
  const LossOptions& o_;
};

}  // namespace kdops::gram
