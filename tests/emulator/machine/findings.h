// What the machine objects to, once per kind and instruction, with the place of the first time.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "machine/program.h"

namespace emulator {

// The block cannot go on: a deadlock, or more instructions than the budget.
struct Trap : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Findings {
 public:
  // `describe()` makes the text and is called at the first time only: it may be slow.
  template <class Describe>
  void add(const std::string& what, int instruction, Describe describe) {
    Finding& finding = found_[{instruction, what}];
    if (finding.times++ == 0) finding.where = describe();
  }
  void merge(const Findings& other) {
    for (const auto& [key, theirs] : other.found_) {
      Finding& ours = found_[key];
      if (ours.times == 0) ours.where = theirs.where;
      ours.times += theirs.times;
    }
  }
  bool empty() const { return found_.empty(); }
  // One sentence a finding: what, source file and line, block, warp and lane.
  std::string text(const Program& program) const;

 private:
  struct Finding {
    std::string where;
    uint64_t times = 0;
  };
  std::map<std::pair<int, std::string>, Finding> found_;
};

}  // namespace emulator
