// The alignment of singular vectors on raw pointers, compiled once per instruction set. A cosine is
// one sum along its vectors, always in the same order, so that equal vectors give equal cosines.
#include "align/align_simd.h"

#include <algorithm>

#include "common/simd/pack_loop.h"
#include "common/simd/pack_math.h"
#include "common/simd/scratch.h"

namespace kdops::align::KDOPS_ISA {

// The vectors of one sample, each in one piece: where they lie, or copied to `room`.
template <class T>
struct Rows {
  const T* data;
  int64_t apart;

  Rows(const Vectors<T>& v, int64_t sample, int64_t length, int64_t count, T* room)
      : data(v.data + sample * v.batch), apart(v.vector) {
    if (room == nullptr) return;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t d = 0; d < length; ++d) room[i * length + d] = data[d * v.entry + i * v.vector];
    data = room;
    apart = length;
  }
  const T* operator[](int64_t i) const { return data + i * apart; }
};

// How much room Rows needs.
template <class T>
int64_t room_for(const Vectors<T>& v, int64_t length, int64_t count) {
  return v.entry == 1 ? 0 : length * count;
}

// The candidate of the largest |cosine|: of equals the first, and NaN counts as the largest, as in
// torch.argmax.
template <class T>
struct Nearest {
  int64_t index = 0;
  T cosine = T(0), magnitude = T(-1);

  void offer(int64_t candidate, T value) {
    const T size = value < T(0) ? -value : value;
    if (!(size > magnitude || (size != size && magnitude == magnitude))) return;
    index = candidate;
    cosine = value;
    magnitude = size;
  }
};

// Four candidates at a time; past the last one it stands in again, and its cosine is not used.
template <class T>
Nearest<T> nearest(const Rows<T>& candidates, int64_t count, const T* teacher, int64_t length) {
  Nearest<T> best;
  for (int64_t i = 0; i < count; i += 4) {
    const T* x[4];
    for (int64_t r = 0; r < 4; ++r) x[r] = candidates[std::min(i + r, count - 1)];
    Pack<T> sum[4] = {T(0), T(0), T(0), T(0)};
    for_packs<T>(length, [&](int64_t d, int lanes) {
      const Pack<T> y = load_some(teacher + d, lanes);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) sum[r] = fma(load_some(x[r] + d, lanes), y, sum[r]);
    });
    T cosines[4];
    reduce_add4(sum, cosines);
    for (int64_t r = 0; r < std::min<int64_t>(4, count - i); ++r) best.offer(i + r, cosines[r]);
  }
  return best;
}

template <class T>
void align_vectors(const Alignment<T>& p, int64_t begin, int64_t end) {
  const auto [batch, length, candidates, count] = p.sizes;
  const Scratch<T> student_room(room_for(p.student, length, candidates));
  const Scratch<T> teacher_room(room_for(p.teacher, length, count));
  for (int64_t b = begin; b < end; ++b) {
    const Rows<T> student(p.student, b, length, candidates, student_room.get());
    const Rows<T> teacher(p.teacher, b, length, count, teacher_room.get());
    for (int64_t j = 0; j < count; ++j) {
      const Nearest<T> best = nearest(student, candidates, teacher[j], length);
      const bool turned = best.cosine < T(0);
      const T* chosen = student[best.index];
      T* out = p.aligned + b * length * count + j;
      for (int64_t d = 0; d < length; ++d) out[d * count] = turned ? -chosen[d] : chosen[d];
      p.choice[b * count + j] = turned ? -(best.index + 1) : best.index + 1;
    }
  }
}

template <class T>
void align_vectors_backward(const AlignmentGradient<T>& p, int64_t begin, int64_t end) {
  const auto [batch, length, candidates, count] = p.sizes;
  for (int64_t b = begin; b < end; ++b)
    for (int64_t i = 0; i < candidates; ++i) {
      T* out = p.student + (b * candidates + i) * length;
      std::fill(out, out + length, T(0));
      for (int64_t j = 0; j < count; ++j) {
        const int64_t choice = p.choice[b * count + j];
        if (choice != i + 1 && choice != -(i + 1)) continue;
        const T* grad = p.grad.data + b * p.grad.batch + j * p.grad.vector;
        const T sign = choice < 0 ? T(-1) : T(1);
        for (int64_t d = 0; d < length; ++d) out[d] += sign * grad[d * p.grad.entry];
      }
    }
}

KDOPS_COMPILE_REAL(align_vectors)
KDOPS_COMPILE_REAL(align_vectors_backward)

}  // namespace kdops::align::KDOPS_ISA
