// FunctionTable: where a program's functions are, as its unwind information says: a range that is all code, whose first
// byte begins an instruction. Other bytes of an executable segment may be data. The file may be anything.
// Source: Linux Standard Base, "Exception Frames" (.eh_frame, .eh_frame_hdr); elf(5).
#ifndef MOAT_SENTRY_CODE_FUNCTION_TABLE_H_
#define MOAT_SENTRY_CODE_FUNCTION_TABLE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "sentry/code/object_reader.h"

namespace moat {

class FunctionTable {
 public:
  // Of an ELF64 file, from the usual sorted table or, where a static program was linked without, from the frames
  // themselves; nullopt: it has neither, or of another form.
  static std::optional<FunctionTable> Read(ObjectReader& file);

  struct Range {
    uint64_t start, end;  // offsets in the file
  };
  // The function around a byte of the file.
  std::optional<Range> Find(ObjectReader& file, uint64_t offset) const;

 private:
  struct Segment {
    uint64_t vaddr, offset, size;
  };
  struct Row {
    int32_t function, description;  // from base_vaddr_
  };
  bool ReadSorted(ObjectReader& file, uint64_t vaddr);
  bool ReadFrames(ObjectReader& file, uint64_t vaddr, uint64_t offset, uint64_t size);
  std::optional<uint64_t> ToOffset(uint64_t vaddr) const;
  std::optional<uint64_t> ToVaddr(uint64_t offset) const;

  std::vector<Segment> segments_;
  uint64_t base_vaddr_ = 0;  // of the table, or of the frames
  std::vector<Row> rows_;    // sorted
};

}  // namespace moat

#endif  // MOAT_SENTRY_CODE_FUNCTION_TABLE_H_
