// PTX text as statements, each with the source line that it was compiled from.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace emulator {

struct PtxError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Statement {
  enum class Kind : uint8_t { text, header, label, open, close };  // a header is that of a kernel
  Kind kind;
  std::string_view text;  // without the ; { } or : that ends it
  uint16_t file;
  uint32_t line;
};

struct Text {
  std::string clean;  // without comments; the statements point into it
  std::vector<Statement> statements;
  std::vector<std::string> files;
};

// `text` must not be moved afterwards: its statements point into itself.
void split_statements(const std::string& ptx, Text& text);

std::string_view trimmed(std::string_view text);
// Operands at commas and bars that are outside of brackets and braces, trimmed.
std::vector<std::string_view> split_operands(std::string_view text);
// At dots or blanks, without empty pieces.
std::vector<std::string_view> split_at(std::string_view text, char separator);

}  // namespace emulator
