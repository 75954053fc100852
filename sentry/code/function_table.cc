#include "sentry/code/function_table.h"

#include <elf.h>

#include <algorithm>
#include <cstring>

namespace moat {
namespace {

constexpr size_t kMaxHeaders = 64;
constexpr uint32_t kMaxRows = 1 << 17;
// Pointer encodings (LSB, "DWARF Exception Header Encoding"): an unsigned word; signed words from the table's address.
constexpr uint8_t kUdata4 = 0x03, kDatarelSdata4 = 0x3b;

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

}  // namespace

std::optional<FunctionTable> FunctionTable::Read(ObjectReader& file) {
  Elf64_Ehdr elf;
  if (!file.ReadValue(0, &elf) || memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0 || elf.e_ident[EI_CLASS] != ELFCLASS64 ||
      elf.e_phentsize != sizeof(Elf64_Phdr) || elf.e_phnum > kMaxHeaders)
    return std::nullopt;
  std::vector<Elf64_Phdr> headers(elf.e_phnum);
  if (!file.Read(elf.e_phoff, {reinterpret_cast<uint8_t*>(headers.data()), headers.size() * sizeof headers[0]}))
    return std::nullopt;
  FunctionTable table;
  for (const Elf64_Phdr& h : headers) {
    if (h.p_type == PT_LOAD) table.segments_.push_back({h.p_vaddr, h.p_offset, h.p_filesz});
    if (h.p_type == PT_GNU_EH_FRAME) table.table_vaddr_ = h.p_vaddr;
  }
  const std::optional<uint64_t> at = table.ToOffset(table.table_vaddr_);
  TableHeader header;
  if (table.table_vaddr_ == 0 || !at || !file.ReadValue(*at, &header)) return std::nullopt;
  // The pointer to the frames is 4 bytes in each of its usual encodings.
  if (header.version != 1 || (header.frame_encoding & 0x0f) != 0x0b || header.count_encoding != kUdata4 ||
      header.table_encoding != kDatarelSdata4 || header.count > kMaxRows)
    return std::nullopt;
  table.rows_.resize(header.count);
  if (!file.Read(*at + sizeof header,
                 {reinterpret_cast<uint8_t*>(table.rows_.data()), table.rows_.size() * sizeof(Row)}))
    return std::nullopt;
  return table;
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
  const auto distance = static_cast<int64_t>(*vaddr - table_vaddr_);
  auto row =
      std::upper_bound(rows_.begin(), rows_.end(), distance, [](int64_t d, const Row& r) { return d < r.function; });
  if (row == rows_.begin()) return std::nullopt;
  --row;
  const uint64_t function = table_vaddr_ + static_cast<int64_t>(row->function);
  const uint64_t description_vaddr = table_vaddr_ + static_cast<int64_t>(row->description);
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
