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

// A kernel is a section ".text.<name>", whose sh_info holds its registers.
void read_registers(const uint8_t* elf, std::map<std::string, int>& registers) {
  const auto header = read<Elf64_Ehdr>(elf);
  const auto section = [&](int i) {
    return read<Elf64_Shdr>(elf + header.e_shoff + size_t{header.e_shentsize} * size_t(i));
  };
  const char* names = reinterpret_cast<const char*>(elf + section(header.e_shstrndx).sh_offset);
  for (int i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr s = section(i);
    const std::string name = names + s.sh_name;
    if (name.rfind(".text.", 0) == 0) registers[name.substr(6)] = static_cast<int>(s.sh_info >> 24);
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
    read_registers(content, binary.registers);
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
