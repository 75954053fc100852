#include "sentry/mm/shared_memory.h"

#include <algorithm>

namespace moat {

SharedMemory::SharedMemory(MemoryFile& memory, CommitAccount& commit, FileRange range, uint64_t charged)
    : memory_(memory), commit_(commit), range_(range), charged_(charged) {
  static std::atomic<uint64_t> next_ino{1};
  identity_.dev_minor = 1;
  identity_.ino = next_ino.fetch_add(1, std::memory_order_relaxed);
}

SharedMemory::~SharedMemory() {
  memory_.Unref(range_);
  commit_.Uncharge(charged_);
}

Result<RefPtr<SharedMemory>> SharedMemory::Create(MemoryFile& memory, CommitAccount& commit, uint64_t length,
                                                  bool no_reserve) {
  const uint64_t charge = no_reserve && commit.mode() != CommitAccount::Mode::kNever ? 0 : length;
  TRY(commit.Charge(charge));
  Result<FileRange> range = memory.Allocate(length, MemoryKind::kAnonymous);
  if (!range.ok()) {
    commit.Uncharge(charge);
    return range.error();
  }
  return AdoptRef(new SharedMemory(memory, commit, *range, charge));
}

Result<HostPages> SharedMemory::Translate(uint64_t offset, uint64_t length, bool write) {
  if (offset >= range_.length()) return kENXIO;
  HostPages pages;
  pages.fd = memory_.fd();
  pages.range.start = range_.start + offset;
  pages.range.end = pages.range.start + std::min(length, range_.length() - offset);
  pages.in_memory_file = true;
  pages.writable = true;
  return pages;
}

Result<void> SharedMemory::AddMapping(MappingSpace&, GuestAddr, GuestAddr, uint64_t, bool) {
  // Its pages never move, so it need not know who maps them.
  mappings_.fetch_add(1, std::memory_order_relaxed);
  return {};
}

void SharedMemory::RemoveMapping(MappingSpace&, GuestAddr, GuestAddr, uint64_t, bool) {
  mappings_.fetch_sub(1, std::memory_order_relaxed);
}

Result<void> SharedMemory::PunchHole(uint64_t offset, uint64_t length) {
  if (offset >= range_.length()) return {};
  const uint64_t start = range_.start + offset;
  memory_.Decommit({start, start + std::min(length, range_.length() - offset)});
  return {};
}

}  // namespace moat
