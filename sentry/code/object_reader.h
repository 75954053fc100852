// ObjectReader: the bytes of a mappable object, as they are now. Thread-safe.
#ifndef MOAT_SENTRY_CODE_OBJECT_READER_H_
#define MOAT_SENTRY_CODE_OBJECT_READER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "platform/memory/mappable.h"
#include "platform/memory/memory_file.h"

namespace moat {

class ObjectReader {
 public:
  // Both must outlive it.
  ObjectReader(Mappable& object, MemoryFile& memory) : object_(object), memory_(memory) {}
  // Exactly `to.size()` bytes at `offset`; false at the object's end, or on any error.
  bool Read(uint64_t offset, std::span<uint8_t> to);
  // As many of [start, end) as there are.
  std::vector<uint8_t> ReadUpTo(uint64_t start, uint64_t end);
  template <typename T>
  bool ReadValue(uint64_t offset, T* value) {
    return Read(offset, {reinterpret_cast<uint8_t*>(value), sizeof *value});
  }

 private:
  // A prefix of it.
  size_t ReadSome(uint64_t offset, std::span<uint8_t> to);
  Mappable& object_;
  MemoryFile& memory_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_CODE_OBJECT_READER_H_
