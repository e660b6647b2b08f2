#include "ptx/symbols.h"

#include <algorithm>

namespace emulator {
namespace {

uint64_t number_of(std::string_view text) {
  const std::string t(text);
  size_t used = 0;
  uint64_t value = 0;
  try {
    if (t.size() > 2 && t[0] == '0' && std::string_view("fFdD").find(t[1]) != std::string::npos)
      value = std::stoull(t.substr(2), &used, 16), used += 2;  // the bits of a float or double
    else if (t[0] == '-')
      value = static_cast<uint64_t>(std::stoll(t, &used, 0));
    else
      value = std::stoull(t, &used, 0);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used < t.size() && t[used] == 'U') ++used;
  if (used == 0 || used != t.size()) throw PtxError("unknown operand " + t);
  return value;
}

uint32_t rounded_up(uint32_t value, uint32_t to) { return (value + to - 1) / to * to; }

constexpr std::pair<std::string_view, Special> kSpecials[] = {
    {"%tid", Special::thread},    {"%ntid", Special::threads}, {"%ctaid", Special::block},
    {"%nctaid", Special::blocks}, {"%laneid", Special::lane},  {"%warpid", Special::warp}};

}  // namespace

uint32_t type_bytes(std::string_view type) {
  if (type == "pred") return 4;
  for (const auto& [bits, bytes] : {std::pair{"64", 8u}, {"32", 4u}, {"16", 2u}, {"8", 1u}})
    if (type.size() > 1 && type.substr(1) == bits) return bytes;
  throw PtxError("unknown type " + std::string(type));
}

Variable variable_of(std::string_view declaration) {
  Variable v;
  uint32_t each = 1;
  const auto words = split_at(declaration, ' ');
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (words[i] == ".align")
      v.align = static_cast<uint32_t>(number_of(words[i + 1]));
    else if (words[i].size() > 2 && std::isdigit(static_cast<unsigned char>(words[i][2])) != 0)
      each = type_bytes(words[i].substr(1));
  }
  std::string_view name = words.back();
  const size_t bracket = name.find('[');
  v.name = name.substr(0, bracket);
  v.bytes = each, v.align = std::max(v.align, each);
  if (bracket != name.npos) {
    const std::string_view count = name.substr(bracket + 1, name.find(']') - bracket - 1);
    v.bytes = count.empty() ? 0 : each * static_cast<uint32_t>(number_of(count));
  }
  return v;
}

Slot Symbols::take(bool wide) {
  constexpr uint32_t kCacheLine = 64;
  const Slot slot = program_.register_bytes;
  program_.register_bytes = rounded_up(slot + kLanes * (wide ? 8 : 4), kCacheLine);
  return slot;
}

Slot Symbols::constant(uint64_t value, bool wide) {
  if (!wide) value &= 0xffffffff;
  const auto [it, is_new] = constants_.try_emplace({value, wide}, kNoSlot);
  if (is_new) {
    it->second = take(wide);
    program_.constants.push_back({it->second, value, wide});
  }
  return it->second;
}

Slot Symbols::special(std::string_view name) {
  const auto [it, is_new] = specials_.try_emplace(std::string(name), kNoSlot);
  if (!is_new) return it->second;
  const size_t dot = name.find('.');
  const int axis = dot == name.npos ? 0 : name[dot + 1] - 'x';
  for (const auto& [known, what] : kSpecials)
    if (known == name.substr(0, dot)) {
      it->second = take(false);
      program_.specials.push_back({it->second, what, axis});
      return it->second;
    }
  throw PtxError("unknown register " + std::string(name));
}

void Symbols::declare_registers(std::string_view declaration) {
  const auto words = split_at(declaration, ' ');
  const bool wide = type_bytes(words.at(1).substr(1)) == 8;
  for (std::string_view name : split_operands(declaration.substr(declaration.find('%')))) {
    const size_t bracket = name.find('<');
    const std::string stem(name.substr(0, bracket));
    if (bracket == name.npos) {  // a piece of inline assembly has its own, again and again
      registers_.try_emplace(stem, Register{take(wide), wide});
      continue;
    }
    const uint64_t count = number_of(name.substr(bracket + 1, name.size() - bracket - 2));
    for (uint64_t i = 0; i < count; ++i)
      registers_[stem + std::to_string(i)] = Register{take(wide), wide};
  }
}

void Symbols::declare_parameters(std::string_view list) {
  for (std::string_view each : split_operands(list)) {
    const Variable v = variable_of(each);
    const uint32_t at = rounded_up(program_.parameter_bytes, v.align);
    addresses_[v.name] = at;
    program_.parameters.push_back({at, v.bytes});
    program_.parameter_bytes = at + v.bytes;
  }
}

void Symbols::declare_shared(const Variable& v) {
  const uint32_t at = rounded_up(program_.static_shared, v.align);
  addresses_[v.name] = at;
  program_.static_shared = at + v.bytes;
}

void Symbols::declare_local(const Variable& v) {
  const uint32_t at = rounded_up(program_.local_bytes, v.align);
  addresses_[v.name] = at;
  program_.local_bytes = at + v.bytes;
}

void Symbols::place_dynamic_shared(const std::string& name) {
  addresses_[name] = rounded_up(program_.static_shared, 16);
}

bool Symbols::knows(std::string_view name) const { return addresses_.contains(std::string(name)); }

const Register* Symbols::find_register(std::string_view name) const {
  const auto it = registers_.find(std::string(name));
  return it == registers_.end() ? nullptr : &it->second;
}

Slot Symbols::operand(std::string_view text, bool wide) {
  if (const Register* r = find_register(text)) {
    if (r->wide != wide) throw PtxError("register of another width: " + std::string(text));
    return r->slot;
  }
  if (text.starts_with('%')) return special(text);
  return constant(address_of(text), wide);
}

uint64_t Symbols::address_of(std::string_view name) const {
  if (const auto it = addresses_.find(std::string(name)); it != addresses_.end()) return it->second;
  return number_of(name);
}

}  // namespace emulator
