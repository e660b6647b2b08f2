#include "ptx/table.h"

namespace emulator {

const Table& Table::all() {
  static const Table* one = [] {
    auto* t = new Table;
    for (auto* add : {add_integers, add_bits, add_floats, add_approximations, add_directed,
                      add_comparisons, add_conversions})
      add(*t);
    return t;
  }();
  return *one;
}

const Operation* Table::find(const std::string& name) const {
  const auto it = known_.find(name);
  return it == known_.end() ? nullptr : &it->second;
}

}  // namespace emulator
