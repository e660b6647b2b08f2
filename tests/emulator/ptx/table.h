// The instructions that only compute: name -> a loop over the lanes, and the width of its registers.
//   t.add("add.f32", [](float a, float b) { return a + b; });
// The types of the function are those of the registers: four bytes also for what is narrower.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>

#include "machine/warp.h"

namespace emulator {

struct Operation {
  Run run = nullptr;
  int inputs = 0;
  bool wide_to = false, wide_from[4] = {};
  bool any_width = false;  // a conversion, which looks at the registers itself
};

template <class F, class To, class... From>
void on_lanes(Mask lanes, To* to, const From*... from) {
  if (lanes == kAllLanes) {
#pragma GCC ivdep  // registers are the same or apart
    for (int l = 0; l < kLanes; ++l) to[l] = F{}(from[l]...);
  } else {
    for (int l = 0; l < kLanes; ++l)
      if (lanes >> l & 1) to[l] = F{}(from[l]...);
  }
}

template <class F, class To, class... From>
void run_on_lanes(Warp& w, const Instruction& in, Mask lanes) {
  [&]<size_t... K>(std::index_sequence<K...>) {
    on_lanes<F>(lanes, lanes_of<To>(w, in.to), lanes_of<const From>(w, in.from[K])...);
  }(std::index_sequence_for<From...>());
}

class Table {
 public:
  static const Table& all();
  const Operation* find(const std::string& name) const;

  template <class F>
  void add(const std::string& name, F) {
    add_function<F>(name, &F::operator());
  }
  void add(const std::string& name, const Operation& operation) { known_[name] = operation; }
  void add_alias(const std::string& name, const std::string& other) {
    known_[name] = known_.at(other);
  }

 private:
  template <class F, class To, class... From>
  void add_function(const std::string& name, To (F::*)(From...) const) {
    known_[name] = {&run_on_lanes<F, To, From...>,
                    sizeof...(From),
                    sizeof(To) == 8,
                    {sizeof(From) == 8 ...},
                    false};
  }
  std::unordered_map<std::string, Operation> known_;
};

// one a file
void add_integers(Table& table);
void add_bits(Table& table);
void add_floats(Table& table);
void add_approximations(Table& table);
void add_directed(Table& table);
void add_comparisons(Table& table);
void add_conversions(Table& table);

}  // namespace emulator
