#include "ptx/module.h"

#include <cctype>

#include "ptx/translate.h"

namespace emulator {
namespace {

bool is_instruction(const Statement& s) {
  return s.kind == Statement::Kind::text && s.text.front() != '.';
}

std::string kernel_name(std::string_view header) {
  const std::string_view after = trimmed(header.substr(header.find(".entry") + 6));
  return std::string(after.substr(0, after.find_first_of("( \n")));
}

// "(.param ...) .maxntid 256, 1, 1"
void read_header(std::string_view header, Program& program, Symbols& symbols) {
  const size_t open = header.find('('), close = header.rfind(')');
  if (open != header.npos) symbols.declare_parameters(header.substr(open + 1, close - open - 1));
  for (const std::string_view limit : {".maxntid", ".reqntid"}) {
    const size_t at = header.find(limit);
    if (at == header.npos) continue;
    const std::string_view rest = header.substr(at + limit.size());
    program.max_threads = 1;
    for (const auto size : split_operands(rest.substr(0, rest.find('.'))))
      program.max_threads *= static_cast<uint32_t>(std::stoul(std::string(size)));
  }
}

}  // namespace

Module::Module(const std::string& ptx) {
  split_statements(ptx, text_);
  const std::vector<Statement>& all = text_.statements;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].kind == Statement::Kind::header) {
      Kernel kernel;
      const std::string name = kernel_name(all[i].text);
      kernel.header = i;
      int depth = 0;
      do {
        ++i;
        depth += all.at(i).kind == Statement::Kind::open;
        depth -= all.at(i).kind == Statement::Kind::close;
      } while (depth > 0);
      kernel.end = i;
      kernels_[name] = std::move(kernel);
    } else if (all[i].text.find(".shared") != std::string_view::npos) {
      const Variable v = variable_of(all[i].text);
      shared_[v.name] = v;
    }
  }
}

const Program& Module::program(const std::string& name) {
  const auto it = kernels_.find(name);
  if (it == kernels_.end()) throw PtxError("no PTX of this kernel");
  if (it->second.program == nullptr) it->second.program = translate(it->second);
  return *it->second.program;
}

// Twice over the statements: first what they declare, so that labels and arrays are known, then
// the instructions.
std::unique_ptr<Program> Module::translate(const Kernel& kernel) const {
  auto program = std::make_unique<Program>();
  Symbols symbols(*program);
  Labels labels;
  program->name = kernel_name(text_.statements[kernel.header].text);
  program->files = text_.files;
  read_header(text_.statements[kernel.header].text, *program, symbols);
  int instructions = 0;
  for (size_t i = kernel.header + 1; i < kernel.end; ++i) {
    const Statement& s = text_.statements[i];
    if (s.kind == Statement::Kind::label) labels[std::string(s.text)] = instructions;
    if (s.kind == Statement::Kind::text) declare(s, symbols);
    instructions += is_instruction(s);
  }
  for (const auto& [name, variable] : shared_)
    if (variable.bytes == 0) symbols.place_dynamic_shared(name);
  Translator translator(symbols, labels);
  for (size_t i = kernel.header + 1; i < kernel.end; ++i)
    if (is_instruction(text_.statements[i]))
      program->code.push_back(translator.translate(text_.statements[i]));
  return program;
}

void Module::declare(const Statement& s, Symbols& symbols) const {
  if (s.text.starts_with(".reg"))
    symbols.declare_registers(s.text);
  else if (s.text.starts_with(".shared"))
    symbols.declare_shared(variable_of(s.text));
  else if (s.text.starts_with(".local"))
    symbols.declare_local(variable_of(s.text));
  else if (s.text.front() != '.')
    declare_used_shared(s, symbols);
  else if (!s.text.starts_with(".pragma"))
    throw PtxError("unknown directive: " + std::string(s.text));
}

// A function's static shared memory belongs to the module; to a kernel, if it names it.
void Module::declare_used_shared(const Statement& s, Symbols& symbols) const {
  const auto ends_name = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_' && c != '$';
  };
  for (size_t at = 0; at < s.text.size();) {
    size_t end = at;
    while (end < s.text.size() && !ends_name(s.text[end])) ++end;
    const auto it = end > at ? shared_.find(s.text.substr(at, end - at)) : shared_.end();
    if (it != shared_.end() && it->second.bytes > 0 && !symbols.knows(it->first))
      symbols.declare_shared(it->second);
    at = end + 1;
  }
}

}  // namespace emulator
