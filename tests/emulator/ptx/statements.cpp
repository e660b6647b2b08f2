#include "ptx/statements.h"

#include <cctype>
#include <charconv>

namespace emulator {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '$' || c == '%';
}
bool starts(std::string_view text, std::string_view with) {
  return text.substr(0, with.size()) == with && !is_name(text.substr(with.size(), 1)[0]);
}

std::string without_comments(const std::string& ptx) {
  std::string clean;
  clean.reserve(ptx.size());
  for (size_t at = 0; at < ptx.size();) {
    if (ptx.compare(at, 2, "//") == 0) {
      at = std::min(ptx.find('\n', at), ptx.size());
    } else {
      clean += ptx[at++];
    }
  }
  return clean;
}

unsigned number_at(std::string_view text) {
  unsigned value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

class Splitter {
 public:
  explicit Splitter(Text& text) : text_(text), rest_(text.clean) {}
  void run() {
    for (skip_blanks(); !rest_.empty(); skip_blanks()) one();
  }

 private:
  void skip_blanks() {
    while (!rest_.empty() && is_blank(rest_[0])) rest_.remove_prefix(1);
  }
  void push(Statement::Kind kind, size_t length, size_t with_end) {
    text_.statements.push_back({kind, trimmed(rest_.substr(0, length)), file_, line_});
    rest_.remove_prefix(with_end);
  }
  void one() {
    if (rest_[0] == '{') return push(Statement::Kind::open, 0, 1);
    if (rest_[0] == '}') return push(Statement::Kind::close, 0, 1);
    if (rest_[0] == '.' && line_directive()) return;
    size_t name = 0;
    while (name < rest_.size() && is_name(rest_[name])) ++name;
    if (name > 0 && name < rest_.size() && rest_[name] == ':')
      return push(Statement::Kind::label, name, name + 1);
    // an operand or a table may hold braces, the header of a kernel ends at one
    const size_t semicolon = std::min(rest_.find(';'), rest_.size());
    const size_t brace = rest_.substr(0, semicolon).find('{');
    if (brace != rest_.npos && rest_.substr(0, brace).find(".entry") != rest_.npos)
      return push(Statement::Kind::header, brace, brace);
    push(Statement::Kind::text, semicolon, std::min(semicolon + 1, rest_.size()));
  }
  // What ends with its line, or (a section) with a brace.
  bool line_directive() {
    size_t end = std::min(rest_.find('\n'), rest_.size());
    const std::string_view line = rest_.substr(0, end);
    if (starts(line, ".loc")) {
      const auto words = split_at(line, ' ');
      file_ = static_cast<uint16_t>(number_at(words.at(1))), line_ = number_at(words.at(2));
    } else if (starts(line, ".file")) {
      name_file(line);
    } else if (starts(line, ".section")) {
      end = std::min(rest_.find('}'), rest_.size() - 1) + 1;
    } else if (!starts(line, ".version") && !starts(line, ".target") &&
               !starts(line, ".address_size")) {
      return false;
    }
    rest_.remove_prefix(end);
    return true;
  }
  void name_file(std::string_view line) {
    const unsigned number = number_at(line.substr(line.find_first_of("0123456789")));
    const size_t first = line.find('"'), last = line.rfind('"');
    std::string_view path = line.substr(first + 1, last - first - 1);
    path = path.substr(path.rfind('/') + 1);  // npos + 1 is 0
    if (text_.files.size() <= number) text_.files.resize(number + 1);
    text_.files[number] = path;
  }

  Text& text_;
  std::string_view rest_;
  uint16_t file_ = 0;
  uint32_t line_ = 0;
};

}  // namespace

void split_statements(const std::string& ptx, Text& text) {
  text.clean = without_comments(ptx);
  for (char& c : text.clean)
    if (c == '\t' || c == '\r') c = ' ';
  Splitter(text).run();
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

std::vector<std::string_view> split_operands(std::string_view text) {
  std::vector<std::string_view> operands;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    if (depth == 0 && (c == ',' || c == '|')) {
      operands.push_back(trimmed(text.substr(begin, i - begin)));
      begin = i + 1;
    }
  }
  const std::string_view last = trimmed(text.substr(begin));
  if (!last.empty()) operands.push_back(last);
  return operands;
}

std::vector<std::string_view> split_at(std::string_view text, char separator) {
  std::vector<std::string_view> pieces;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    if (const auto piece = trimmed(text.substr(0, end)); !piece.empty()) pieces.push_back(piece);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return pieces;
}

}  // namespace emulator
