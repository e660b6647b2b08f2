// What an instruction of PTX costs: a class to count it in, the issue slots of the machine code that
// it becomes on sm_90, and the cycles until its result is there.
#pragma once

#include <cstdint>
#include <string_view>

namespace emulator {

enum class Class : uint8_t {
  float32,
  float64,
  special,  // divisions, roots, exponentials: the special function unit, and what rounds its result
  integer,
  convert,
  move,  // most are gone in machine code: they cost nothing
  branch,
  barrier,
  shuffle,  // and votes
  shared,
  global,
  local,
};
constexpr int kClasses = 12;
constexpr const char* kClassNames[kClasses] = {"float32", "float64", "special", "integer",
                                               "convert", "move",    "branch",  "barrier",
                                               "shuffle", "shared",  "global",  "local"};

struct Cost {
  Class what = Class::integer;
  float slots = 1, latency = 5;
};

// Of documentation and published measurements for sm_80 to sm_90; cycles of the multiprocessor.
// None was measured by us.
struct Latency {
  static constexpr float float32 = 4, integer = 5, float64 = 10, convert = 18, special = 22;
  static constexpr float shared = 30, shuffle = 24, vote = 12, barrier = 24, taken_branch = 9;
  static constexpr float near = 36;                      // global memory that lies in L1
  static constexpr float second_level = 270, far = 600;  // in L2; in the device's memory
};

// name: of an instruction, with its types, as "fma.rn.f32". Never throws: what is unknown is an
// integer instruction.
Cost cost_of(std::string_view name);

}  // namespace emulator
