#include "ptx/translate.h"

#include <algorithm>

#include "machine/warp.h"
#include "ptx/table.h"

namespace emulator {
namespace {

using Pieces = std::vector<std::string_view>;

bool has(const Pieces& pieces, std::string_view piece) {
  return std::find(pieces.begin(), pieces.end(), piece) != pieces.end();
}

template <class T, size_t N>
T look_up(const std::pair<std::string_view, T> (&known)[N], std::string_view name) {
  for (const auto& [text, value] : known)
    if (text == name) return value;
  throw PtxError("unknown form ." + std::string(name));
}

constexpr std::pair<std::string_view, Shuffle> kShuffles[] = {{"idx", Shuffle::index},
                                                              {"bfly", Shuffle::butterfly},
                                                              {"up", Shuffle::up},
                                                              {"down", Shuffle::down}};
constexpr std::pair<std::string_view, Vote> kVotes[] = {
    {"any", Vote::any},     {"or", Vote::any},        {"all", Vote::all},   {"and", Vote::all},
    {"uni", Vote::uniform}, {"ballot", Vote::ballot}, {"popc", Vote::count}};

Space space_of(const Pieces& name) {
  if (has(name, "global")) return Space::global;
  if (has(name, "shared")) return Space::shared;
  return has(name, "local") ? Space::local : Space::generic;
}

Pieces in_braces(std::string_view text) {
  if (text.front() != '{') return {text};
  return split_operands(text.substr(1, text.size() - 2));
}

void expect(const Pieces& operands, size_t count) {
  if (operands.size() != count) throw PtxError("not " + std::to_string(count) + " operands");
}

}  // namespace

Instruction Translator::translate(const Statement& statement) {
  Instruction in;
  in.file = statement.file, in.line = statement.line;
  std::string_view text = statement.text;
  try {
    guard(in, text);
    const size_t blank = std::min(text.find_first_of(" \n"), text.size());
    in.cost = cost_of(text.substr(0, blank));
    dispatch(in, text.substr(0, blank), split_operands(text.substr(blank)));
  } catch (const std::exception& error) {
    throw PtxError(std::string(error.what()) + " in: " + std::string(statement.text));
  }
  return in;
}

void Translator::guard(Instruction& in, std::string_view& text) {
  if (text.front() != '@') return;
  in.guard_negated = text[1] == '!';
  const size_t begin = in.guard_negated ? 2 : 1, end = text.find_first_of(" \n");
  in.guard = narrow(text.substr(begin, end - begin));
  text = trimmed(text.substr(end));
}

void Translator::dispatch(Instruction& in, std::string_view name, const Operands& operands) {
  const Pieces pieces = split_at(name, '.');
  const std::string_view what = pieces.at(0);
  if (what == "bra") return branch(in, operands);
  if (what == "bar") return barrier(in, name, operands);
  if (what == "ld" || what == "st" || what == "atom") return memory(in, name, operands);
  if (what == "shfl") return shuffle_lanes(in, pieces.at(2), operands);
  if (what == "vote") return vote_of_warp(in, pieces.at(2), operands);
  if (what == "ret" || what == "exit") {
    in.kind = Kind::exit;
  } else if (what == "mov" && (operands.at(0)[0] == '{' || operands.at(1)[0] == '{')) {
    move_pair(in, std::string(name), operands);
  } else {
    compute(in, std::string(name), operands);
  }
}

void Translator::branch(Instruction& in, const Operands& operands) {
  in.kind = Kind::branch;
  const auto it = labels_.find(std::string(operands.at(0)));
  if (it == labels_.end()) throw PtxError("unknown label");
  in.target = it->second;
}

void Translator::compute(Instruction& in, const std::string& name, const Operands& operands) {
  const Operation* known = Table::all().find(name);
  if (known == nullptr) throw PtxError("unknown instruction " + name);
  expect(operands, static_cast<size_t>(known->inputs) + 1);
  in.run = known->run;
  if (known->any_width) {
    const Register *to = symbols_.find_register(operands[0]),
                   *from = symbols_.find_register(operands[1]);
    if (to == nullptr || from == nullptr) throw PtxError("conversion of what is no register");
    in.to = to->slot, in.wide_to = to->wide;
    in.from[0] = from->slot, in.wide_from = from->wide;
    return;
  }
  in.to = symbols_.operand(operands[0], known->wide_to);
  for (int i = 0; i < known->inputs; ++i)
    in.from[i] = symbols_.operand(operands[static_cast<size_t>(i) + 1], known->wide_from[i]);
}

void Translator::move_pair(Instruction& in, const std::string& name, const Operands& operands) {
  const bool packs = operands.at(1)[0] == '{';
  const Operation* known = Table::all().find(name + (packs ? " pack" : " unpack"));
  if (known == nullptr) throw PtxError("unknown instruction " + name + " of a pair");
  in.run = known->run;
  const Pieces pair = in_braces(operands[packs ? 1 : 0]);
  expect(pair, 2);
  const Slot low = narrow(pair[0]), high = narrow(pair[1]);
  if (packs) {
    in.to = symbols_.operand(operands[0], true), in.from[0] = low, in.from[1] = high;
  } else {
    in.from[0] = symbols_.operand(operands[1], true), in.to = low, in.second_to = high;
  }
}

void Translator::memory(Instruction& in, std::string_view name, const Operands& operands) {
  const Pieces pieces = split_at(name, '.');
  const std::string_view type = pieces.back();
  in.store = pieces[0] == "st", in.atomic = pieces[0] == "atom";
  in.bytes = static_cast<uint8_t>(type_bytes(type)), in.is_signed = type[0] == 's';
  in.kind = Kind::memory, in.run = access_memory, in.space = space_of(pieces);
  address(in, operands.at(in.store ? 0 : 1));
  if (in.atomic && (!has(pieces, "add") || type != "u32")) throw PtxError("unknown atomic");
  if (in.atomic) in.to = narrow(operands.at(0));
  const Pieces values = in_braces(operands.at(in.atomic ? 2 : in.store ? 1 : 0));
  in.count = static_cast<uint8_t>(values.size());
  for (size_t v = 0; v < values.size(); ++v) {
    const Register* r = symbols_.find_register(values[v]);
    in.wide_value[v] = r != nullptr ? r->wide : in.bytes == 8;
    in.values[v] = symbols_.operand(values[v], in.wide_value[v]);
  }
  if (has(pieces, "param")) in.run = load_parameter;
}

// [register + number] or [name + number]
void Translator::address(Instruction& in, std::string_view bracketed) {
  const std::string_view inside = bracketed.substr(1, bracketed.size() - 2);
  const size_t plus = inside.find('+');
  const std::string_view base = trimmed(inside.substr(0, plus));
  if (plus != inside.npos) in.offset = std::stoll(std::string(inside.substr(plus + 1)));
  if (const Register* r = symbols_.find_register(base)) {
    in.from[0] = r->slot, in.wide_address = r->wide;
  } else {
    in.offset += static_cast<int64_t>(symbols_.address_of(base));
  }
}

void Translator::shuffle_lanes(Instruction& in, std::string_view how, const Operands& operands) {
  in.kind = Kind::warp_operation, in.run = shuffle, in.shuffle = look_up(kShuffles, how);
  const size_t first = operands.size() - 4;  // before it one or two results
  in.to = narrow(operands.at(0));
  if (first == 2) in.second_to = narrow(operands[1]);
  for (size_t i = 0; i < 3; ++i) in.from[i] = narrow(operands.at(first + i));
  in.members = narrow(operands.at(first + 3));
}

void Translator::vote_of_warp(Instruction& in, std::string_view how, const Operands& operands) {
  in.kind = Kind::warp_operation, in.run = vote, in.vote = look_up(kVotes, how);
  expect(operands, 3);
  in.to = narrow(operands[0]);
  predicate(in, operands[1]);
  in.members = narrow(operands[2]);
}

void Translator::barrier(Instruction& in, std::string_view name, const Operands& operands) {
  const Pieces pieces = split_at(name, '.');
  if (pieces.at(1) == "warp") {
    in.kind = Kind::warp_operation, in.members = narrow(operands.at(0));
    return;
  }
  in.kind = Kind::block_barrier;
  const bool votes = pieces.at(1) == "red";
  expect(operands, votes ? 3 : 1);  // others are for some of the threads
  if (operands[votes ? 1 : 0] != "0") throw PtxError("barrier of another number");
  if (!votes) return;
  in.vote = look_up(kVotes, pieces.at(2));
  in.to = narrow(operands[0]);
  predicate(in, operands[2]);
}

void Translator::predicate(Instruction& in, std::string_view text) {
  in.vote_negated = text[0] == '!';
  in.from[0] = narrow(text.substr(in.vote_negated ? 1 : 0));
}

}  // namespace emulator
