#include "sentry/code/object_reader.h"

#include <sys/uio.h>

#include <algorithm>

#include "platform/memory/copy_epoch.h"
#include "platform/memory/safe_copy.h"

namespace moat {

size_t ObjectReader::ReadSome(uint64_t offset, std::span<uint8_t> to) {
  const uint64_t page = PageFloor(offset), skipped = offset - page;
  CopyEpoch::Section section(MemoryCopyEpoch());
  Result<HostPages> pages = object_.Translate(page, PageCeil(skipped + to.size()), false);
  if (!pages.ok() || pages->range.length() <= skipped) return 0;
  size_t n = std::min<uint64_t>(to.size(), pages->range.length() - skipped);
  const uint64_t from = pages->range.start + skipped;
  if (!pages->in_memory_file) {
    const iovec piece{to.data(), n};
    return static_cast<size_t>(std::max<ssize_t>(preadv2(pages->fd, &piece, 1, static_cast<off_t>(from), 0), 0));
  }
  n = std::min<size_t>(n, MemoryFile::kChunk - from % MemoryFile::kChunk);
  Result<std::byte*> source = memory_.Pointer(from);
  return source.ok() ? SafeCopy(to.data(), *source, n) : 0;
}

bool ObjectReader::Read(uint64_t offset, std::span<uint8_t> to) {
  while (!to.empty()) {
    const size_t n = ReadSome(offset, to);
    if (n == 0) return false;
    offset += n;
    to = to.subspan(n);
  }
  return true;
}

std::vector<uint8_t> ObjectReader::ReadUpTo(uint64_t start, uint64_t end) {
  std::vector<uint8_t> bytes(end - start);
  size_t done = 0;
  while (done < bytes.size()) {
    const size_t n = ReadSome(start + done, std::span(bytes).subspan(done));
    if (n == 0) break;
    done += n;
  }
  bytes.resize(done);
  return bytes;
}

}  // namespace moat
