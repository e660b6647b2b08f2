// The names of one kernel: registers, shared and local arrays, parameters; and what stands for a
// number. Each gets its place in the register file or its address.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "machine/program.h"
#include "ptx/statements.h"

namespace emulator {

struct Register {
  Slot slot;
  bool wide;
};

// ".align 16 .b8 name[64]" and the like.
struct Variable {
  std::string name;
  uint32_t align = 1, bytes = 0;  // no bytes: dynamic shared memory
};
Variable variable_of(std::string_view declaration);

// Bytes of a type such as "f32" or "pred"; of a register there are at least four.
uint32_t type_bytes(std::string_view type);

class Symbols {
 public:
  explicit Symbols(Program& program) : program_(program) {}

  void declare_registers(std::string_view declaration);  // ".reg .b32 %r<12>"
  void declare_parameters(std::string_view list);
  void declare_shared(const Variable& variable);
  void declare_local(const Variable& variable);
  void place_dynamic_shared(const std::string& name);  // when all of static shared is known
  bool knows(std::string_view name) const;

  const Register* find_register(std::string_view name) const;
  // A register of that width, or the slot of a constant.
  Slot operand(std::string_view text, bool wide);
  // What an address may begin with besides a register: an array, a parameter, a number.
  uint64_t address_of(std::string_view name) const;

 private:
  Slot take(bool wide);
  Slot constant(uint64_t value, bool wide);
  Slot special(std::string_view name);

  Program& program_;
  std::unordered_map<std::string, Register> registers_;
  std::unordered_map<std::string, uint64_t> addresses_;
  std::map<std::pair<uint64_t, bool>, Slot> constants_;
  std::map<std::string, Slot> specials_;
};

}  // namespace emulator
