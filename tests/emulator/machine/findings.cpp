#include "machine/findings.h"

namespace emulator {
namespace {

std::string place(const Program& program, int instruction) {
  const Instruction& at = program.code[static_cast<size_t>(instruction)];
  const std::string file = at.file < program.files.size() ? program.files[at.file] : "?";
  return file + ":" + std::to_string(at.line);
}

}  // namespace

std::string Findings::text(const Program& program) const {
  std::string all;
  for (const auto& [key, finding] : found_) {
    if (!all.empty()) all += "; ";
    all += key.second;
    if (key.first >= 0) all += " at " + place(program, key.first);
    if (!finding.where.empty()) all += " (" + finding.where + ")";
    if (finding.times > 1) all += ", " + std::to_string(finding.times) + " times";
  }
  return all;
}

}  // namespace emulator
