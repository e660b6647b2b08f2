// The layout is not documented. What is used of it:
//   wrapper  u32 magic, u32 version, pointer to the data
//   data     u32 magic, u16 version, u16 bytes of this header, u64 bytes of all entries
//   entry    u16 kind (1 PTX, 2 ELF), u16 version, u32 bytes of this header, u64 bytes that follow,
//            12 bytes, u32 capability at byte 28
#include "runtime/fat_binary.h"

#include <elf.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace emulator {
namespace {

enum : uint16_t { kPtx = 1, kElf = 2 };

template <class T>
T read(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

class Elf {
 public:
  explicit Elf(const uint8_t* start) : start_(start), header_(read<Elf64_Ehdr>(start)) {
    for (int i = 0; i < header_.e_shnum; ++i)
      sections_.push_back(
          read<Elf64_Shdr>(start + header_.e_shoff + size_t{header_.e_shentsize} * size_t(i)));
  }
  const Elf64_Shdr* find(const std::string& name) const {
    for (const Elf64_Shdr& s : sections_)
      if (name == text(sections_[header_.e_shstrndx], s.sh_name)) return &s;
    return nullptr;
  }
  std::string symbol(uint32_t index) const {
    const Elf64_Shdr* table = find(".symtab");
    if (table == nullptr) return "";
    const auto one = read<Elf64_Sym>(bytes(*table) + index * sizeof(Elf64_Sym));
    return text(sections_.at(table->sh_link), one.st_name);
  }
  const uint8_t* bytes(const Elf64_Shdr& section) const { return start_ + section.sh_offset; }

 private:
  std::string text(const Elf64_Shdr& strings, uint32_t at) const {
    return reinterpret_cast<const char*>(bytes(strings)) + at;
  }
  const uint8_t* start_;
  Elf64_Ehdr header_;
  std::vector<Elf64_Shdr> sections_;
};

// ".nv.info" is a list of attributes: u8 format, u8 which, u16 value or the bytes that follow. That of
// the registers is followed by the index of a symbol and a count, that of the stack by a size.
void read_machine_code(const uint8_t* start, FatBinary& binary) {
  constexpr uint8_t kSized = 4, kFrameSize = 0x11, kRegisterCount = 0x2f;
  constexpr size_t kInstruction = 16;  // bytes
  const Elf elf(start);
  const Elf64_Shdr* info = elf.find(".nv.info");
  if (info == nullptr) return;
  const uint8_t *at = elf.bytes(*info), *end = at + info->sh_size;
  while (at < end) {
    if (at[1] == kRegisterCount || at[1] == kFrameSize) {
      const std::string name = elf.symbol(read<uint32_t>(at + 4));
      auto& known = at[1] == kFrameSize ? binary.stack : binary.registers;
      known[name] = static_cast<int>(read<uint32_t>(at + 8));
      if (const Elf64_Shdr* code = elf.find(".text." + name))
        binary.code[name] = static_cast<int>(code->sh_size / kInstruction);
    }
    at += 4 + (at[0] == kSized ? read<uint16_t>(at + 2) : 0);
  }
}

void read_entry(const uint8_t* entry, FatBinary& binary) {
  const auto kind = read<uint16_t>(entry);
  const auto bytes = read<uint64_t>(entry + 8);
  const auto capability = static_cast<int>(read<uint32_t>(entry + 28));
  const uint8_t* content = entry + read<uint32_t>(entry + 4);
  if (kind == kPtx) {
    const char* text = reinterpret_cast<const char*>(content);
    binary.ptx.assign(text, strnlen(text, bytes));
    binary.ptx_capability = capability;
    if (binary.ptx.find(".version") == std::string::npos)
      throw std::runtime_error("emulator: compressed PTX, compile with --compress-mode=none");
  } else if (kind == kElf) {
    if (std::memcmp(content, ELFMAG, SELFMAG) != 0)
      throw std::runtime_error("emulator: compressed code, compile with --compress-mode=none");
    binary.machine_code.push_back(capability);
    read_machine_code(content, binary);
  }
}

}  // namespace

FatBinary read_fat_binary(const void* wrapper) {
  const auto* data = read<const uint8_t*>(static_cast<const uint8_t*>(wrapper) + 8);
  FatBinary binary;
  const uint8_t* at = data + read<uint16_t>(data + 6);
  const uint8_t* end = at + read<uint64_t>(data + 8);
  while (at < end) {
    read_entry(at, binary);
    at += read<uint32_t>(at + 4) + read<uint64_t>(at + 8);
  }
  return binary;
}

// Machine code runs on later devices of its major number, PTX on every later one.
bool FatBinary::runs_on(int capability) const {
  if (ptx_capability > 0 && ptx_capability <= capability) return true;
  return std::any_of(machine_code.begin(), machine_code.end(),
                     [&](int code) { return code / 10 == capability / 10 && code <= capability; });
}

}  // namespace emulator
