#include "platform/systrap/operation_queue.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>

namespace moat::systrap_platform {
namespace {

constexpr uint64_t kPage = 4096;

Command Map(uint64_t page, uint64_t pages, uint64_t offset, int prot = PROT_READ, int fd = 3) {
  return {SYS_mmap,
          {page * kPage, pages * kPage, static_cast<uint64_t>(prot), MAP_PRIVATE, static_cast<uint64_t>(fd),
           offset * kPage}};
}
Command Unmap(uint64_t page, uint64_t pages) { return {SYS_munmap, {page * kPage, pages * kPage, 0, 0, 0, 0}}; }

// "m10+4@0" for each mapping, "u10+4" for what is unmapped.
std::string Contents(OperationQueue& queue) {
  std::string out;
  Command c;
  while (queue.Take(&c, 1) == 1) {
    out += (c.number == SYS_mmap ? "m" : "u") + std::to_string(c.args[0] / kPage) + "+" +
           std::to_string(c.args[1] / kPage);
    if (c.number == SYS_mmap) out += "@" + std::to_string(c.args[5] / kPage);
    out += " ";
  }
  return out;
}

TEST(OperationQueue, NeighboursAreJoinedWhenTheyNeedTheSame) {
  OperationQueue queue;
  queue.Push(Map(10, 2, 0), false);
  queue.Push(Map(12, 2, 2), false);
  queue.Push(Map(14, 2, 8), false);              // another place of the file
  queue.Push(Map(16, 2, 10, PROT_NONE), false);  // another protection
  queue.Push(Unmap(30, 1), false);
  queue.Push(Unmap(31, 1), false);
  EXPECT_EQ(Contents(queue), "m10+4@0 m14+2@8 m16+2@10 u30+2 ");
}
TEST(OperationQueue, AMappingReplacesWhatWasUnmappedForIt) {
  OperationQueue queue;
  queue.Push(Unmap(10, 2), false);
  queue.Push(Map(9, 4, 0), false);
  queue.Push(Unmap(20, 4), false);
  queue.Push(Map(20, 2, 0), false);  // less than that
  EXPECT_EQ(Contents(queue), "m9+4@0 u20+4 m20+2@0 ");
}
TEST(OperationQueue, ALibraryIsMappedInDisjointPieces) {
  OperationQueue queue;
  queue.Push(Map(100, 20, 0), true);
  queue.Push(Unmap(104, 8), false);
  queue.Push(Map(104, 8, 4, PROT_READ | PROT_EXEC), true);
  queue.Push(Unmap(112, 4), false);
  queue.Push(Map(112, 4, 12, PROT_READ), true);
  EXPECT_TRUE(queue.may_wait());
  queue.Push(Unmap(116, 4), false);
  EXPECT_TRUE(queue.may_wait());
  queue.Push(Map(116, 2, 15, PROT_READ | PROT_WRITE), false);
  EXPECT_FALSE(queue.may_wait());
  EXPECT_EQ(Contents(queue), "m100+4@0 m104+8@4 m112+4@12 m116+2@15 ");
}
TEST(OperationQueue, WhatWaitsIsCutAnywhere) {
  OperationQueue queue;
  queue.Push(Map(10, 10, 0), true);
  queue.Push(Unmap(10, 2), false);
  queue.Push(Unmap(18, 2), false);
  queue.Push(Unmap(14, 1), false);
  EXPECT_TRUE(queue.may_wait());
  queue.Push(Unmap(15, 3), false);
  EXPECT_EQ(queue.size(), 1u);
  queue.Push(Unmap(12, 2), false);
  EXPECT_TRUE(queue.empty());
  EXPECT_FALSE(queue.may_wait());
}
TEST(OperationQueue, NothingWaitsBehindWhatMayNot) {
  OperationQueue queue;
  queue.Push(Unmap(50, 1), false);
  queue.Push(Map(10, 4, 0), true);
  EXPECT_FALSE(queue.may_wait());
  // Now something may be mapped where the mapping is to go: it has to be unmapped, too.
  queue.Push(Unmap(11, 1), false);
  EXPECT_EQ(Contents(queue), "u50+1 m10+4@0 u11+1 ");
}
TEST(OperationQueue, MoreThanWhatWaitsIsUnmappedByTheHost) {
  OperationQueue queue;
  queue.Push(Map(10, 4, 0), true);
  queue.Push(Unmap(12, 4), false);
  EXPECT_FALSE(queue.may_wait());
  EXPECT_EQ(Contents(queue), "m10+4@0 u12+4 ");
}

}  // namespace
}  // namespace moat::systrap_platform
