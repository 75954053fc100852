#include "sentry/code/function_table.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>

namespace moat {
namespace {

constexpr size_t kMaxHeaders = 64;
constexpr uint32_t kMaxRows = 1 << 17;
// Pointer encodings (LSB, "DWARF Exception Header Encoding"): an unsigned word; signed words from the table's address,
// and from their own.
constexpr uint8_t kUdata4 = 0x03, kDatarelSdata4 = 0x3b, kPcrelSdata4 = 0x1b;
constexpr uint64_t kMaxFrames = 8 << 20;

struct [[gnu::packed]] TableHeader {
  uint8_t version, frame_encoding, count_encoding, table_encoding;
  int32_t frame;
  uint32_t count;
};

// The fields of a frame description entry that do not depend on its flavour. `function` is relative to itself, as
// compilers for this machine have it.
struct [[gnu::packed]] FrameDescription {
  uint32_t length;
  uint32_t common;
  int32_t function;
  uint32_t size;
};
constexpr uint32_t kLongForm = 0xffffffff;

template <typename T>
std::span<uint8_t> BytesOf(std::vector<T>& values) {
  return {reinterpret_cast<uint8_t*>(values.data()), values.size() * sizeof(T)};
}

std::optional<Elf64_Shdr> FindSection(ObjectReader& file, const Elf64_Ehdr& elf, std::string_view name) {
  if (elf.e_shentsize != sizeof(Elf64_Shdr) || elf.e_shnum > kMaxHeaders || elf.e_shstrndx >= elf.e_shnum)
    return std::nullopt;
  std::vector<Elf64_Shdr> sections(elf.e_shnum);
  if (!file.Read(elf.e_shoff, BytesOf(sections))) return std::nullopt;
  const Elf64_Shdr& names = sections[elf.e_shstrndx];
  for (const Elf64_Shdr& section : sections) {
    char found[16] = {};
    if (name.size() < sizeof found && section.sh_type != SHT_NOBITS &&
        file.Read(names.sh_offset + section.sh_name, {reinterpret_cast<uint8_t*>(found), name.size() + 1}) &&
        found == name)
      return section;
  }
  return std::nullopt;
}

// Whether the common entry that `entry` begins with says that its descriptions hold functions as FrameDescription has
// them, and nothing else: augmentation "zR", and the usual encoding.
bool HasUsualPointers(std::span<const uint8_t> entry) {
  constexpr uint8_t kStart[] = {0, 0, 0, 0, 1, 'z', 'R', 0};  // no description, version 1
  const uint8_t* at = entry.data() + sizeof(uint32_t);
  const uint8_t* const end = entry.data() + std::min<size_t>(entry.size(), 64);
  if (entry.size() < sizeof(uint32_t) + sizeof kStart || memcmp(at, kStart, sizeof kStart) != 0) return false;
  at += sizeof kStart;
  // Two alignments, the return address's register, the length of what follows: numbers of any length (LEB128).
  for (int numbers = 0; numbers < 4; ++numbers) {
    while (at < end && (*at & 0x80) != 0) ++at;
    ++at;
  }
  return at < end && *at == kPcrelSdata4;
}

}  // namespace

std::optional<FunctionTable> FunctionTable::Read(ObjectReader& file) {
  Elf64_Ehdr elf;
  if (!file.ReadValue(0, &elf) || memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0 || elf.e_ident[EI_CLASS] != ELFCLASS64 ||
      elf.e_phentsize != sizeof(Elf64_Phdr) || elf.e_phnum > kMaxHeaders)
    return std::nullopt;
  std::vector<Elf64_Phdr> headers(elf.e_phnum);
  if (!file.Read(elf.e_phoff, BytesOf(headers))) return std::nullopt;
  FunctionTable table;
  uint64_t sorted = 0;
  for (const Elf64_Phdr& h : headers) {
    if (h.p_type == PT_LOAD) table.segments_.push_back({h.p_vaddr, h.p_offset, h.p_filesz});
    if (h.p_type == PT_GNU_EH_FRAME) sorted = h.p_vaddr;
  }
  if (sorted != 0) return table.ReadSorted(file, sorted) ? std::optional(std::move(table)) : std::nullopt;
  const std::optional<Elf64_Shdr> frames = FindSection(file, elf, ".eh_frame");
  if (!frames || !table.ReadFrames(file, frames->sh_addr, frames->sh_offset, frames->sh_size)) return std::nullopt;
  return table;
}

bool FunctionTable::ReadSorted(ObjectReader& file, uint64_t vaddr) {
  base_vaddr_ = vaddr;
  const std::optional<uint64_t> at = ToOffset(vaddr);
  TableHeader header;
  if (!at || !file.ReadValue(*at, &header)) return false;
  // The pointer to the frames is 4 bytes in each of its usual encodings.
  if (header.version != 1 || (header.frame_encoding & 0x0f) != 0x0b || header.count_encoding != kUdata4 ||
      header.table_encoding != kDatarelSdata4 || header.count > kMaxRows)
    return false;
  rows_.resize(header.count);
  return file.Read(*at + sizeof header, BytesOf(rows_));
}

bool FunctionTable::ReadFrames(ObjectReader& file, uint64_t vaddr, uint64_t offset, uint64_t size) {
  std::vector<uint8_t> frames;
  if (size > kMaxFrames || (frames = file.ReadUpTo(offset, offset + size)).size() != size) return false;
  base_vaddr_ = vaddr;
  const std::span<const uint8_t> all(frames);
  FrameDescription entry;
  uint64_t usual = 0;  // the common entry that was last seen to have the usual form
  for (uint64_t at = 0; at + sizeof entry <= size; at += sizeof entry.length + entry.length) {
    memcpy(&entry, &all[at], sizeof entry);
    if (entry.length == 0 || entry.length == kLongForm) break;
    if (entry.common == 0) continue;
    const uint64_t common = at + offsetof(FrameDescription, common) - entry.common;
    if (common >= size || (common != usual && !HasUsualPointers(all.subspan(common)))) continue;
    usual = common;
    const int64_t function = static_cast<int64_t>(at + offsetof(FrameDescription, function)) + entry.function;
    if (function != static_cast<int32_t>(function)) continue;
    rows_.push_back({static_cast<int32_t>(function), static_cast<int32_t>(at)});
  }
  std::ranges::sort(rows_, {}, &Row::function);
  return true;
}

std::optional<uint64_t> FunctionTable::ToOffset(uint64_t vaddr) const {
  for (const Segment& s : segments_) {
    if (vaddr - s.vaddr < s.size) return s.offset + (vaddr - s.vaddr);
  }
  return std::nullopt;
}

std::optional<uint64_t> FunctionTable::ToVaddr(uint64_t offset) const {
  for (const Segment& s : segments_) {
    if (offset - s.offset < s.size) return s.vaddr + (offset - s.offset);
  }
  return std::nullopt;
}

std::optional<FunctionTable::Range> FunctionTable::Find(ObjectReader& file, uint64_t offset) const {
  const std::optional<uint64_t> vaddr = ToVaddr(offset);
  if (!vaddr) return std::nullopt;
  const auto distance = static_cast<int64_t>(*vaddr - base_vaddr_);
  auto row =
      std::upper_bound(rows_.begin(), rows_.end(), distance, [](int64_t d, const Row& r) { return d < r.function; });
  if (row == rows_.begin()) return std::nullopt;
  --row;
  const uint64_t function = base_vaddr_ + static_cast<int64_t>(row->function);
  const uint64_t description_vaddr = base_vaddr_ + static_cast<int64_t>(row->description);
  const std::optional<uint64_t> description_offset = ToOffset(description_vaddr);
  FrameDescription description;
  if (!description_offset || !file.ReadValue(*description_offset, &description)) return std::nullopt;
  const uint64_t field = description_vaddr + offsetof(FrameDescription, function);
  // That the entry names the same function shows that it has the form which is assumed here.
  if (description.length == kLongForm || description.common == 0 ||
      field + static_cast<int64_t>(description.function) != function || *vaddr - function >= description.size)
    return std::nullopt;
  const std::optional<uint64_t> start = ToOffset(function);
  const std::optional<uint64_t> last = ToOffset(function + description.size - 1);
  if (!start || !last || *last < *start) return std::nullopt;
  return Range{*start, *last + 1};
}

}  // namespace moat
