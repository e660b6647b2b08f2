// A PTX text with its kernels. A kernel is translated when it is first asked for.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "machine/program.h"
#include "ptx/statements.h"
#include "ptx/symbols.h"

namespace emulator {

class Module {
 public:
  explicit Module(const std::string& ptx);
  const Program& program(const std::string& kernel);  // PtxError if it cannot be run

 private:
  struct Kernel {
    size_t header = 0, end = 0;  // among the statements
    std::unique_ptr<Program> program;
  };
  std::unique_ptr<Program> translate(const Kernel& kernel) const;
  void declare(const Statement& statement, Symbols& symbols) const;
  void declare_used_shared(const Statement& statement, Symbols& symbols) const;

  Text text_;
  std::map<std::string, Kernel> kernels_;
  std::map<std::string, Variable, std::less<>> shared_;  // of the module, not of a kernel
};

}  // namespace emulator
