// One PTX instruction -> one Instruction of the machine.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

#include "machine/program.h"
#include "ptx/statements.h"
#include "ptx/symbols.h"

namespace emulator {

using Labels = std::unordered_map<std::string, int>;  // to the index of an instruction

class Translator {
 public:
  Translator(Symbols& symbols, const Labels& labels) : symbols_(symbols), labels_(labels) {}
  Instruction translate(const Statement& statement);  // PtxError where it is not known

 private:
  using Operands = std::vector<std::string_view>;
  void guard(Instruction& in, std::string_view& text);
  void dispatch(Instruction& in, std::string_view name, const Operands& operands);
  void branch(Instruction& in, const Operands& operands);
  void compute(Instruction& in, const std::string& name, const Operands& operands);
  void move_pair(Instruction& in, const std::string& name, const Operands& operands);
  void memory(Instruction& in, std::string_view name, const Operands& operands);
  void address(Instruction& in, std::string_view bracketed);
  void shuffle_lanes(Instruction& in, std::string_view how, const Operands& operands);
  void vote_of_warp(Instruction& in, std::string_view how, const Operands& operands);
  void barrier(Instruction& in, std::string_view name, const Operands& operands);
  void predicate(Instruction& in, std::string_view text);
  Slot narrow(std::string_view text) { return symbols_.operand(text, false); }

  Symbols& symbols_;
  const Labels& labels_;
};

}  // namespace emulator
