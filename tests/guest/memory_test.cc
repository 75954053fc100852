// mremap(2), madvise(2), mincore(2), mlock(2), process_vm_readv(2), copy on write across fork.
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

bool Faults(const std::function<void()>& body) {
  const int status = StatusOf(body);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}
void Touch(const char* p) { [[maybe_unused]] const char c = *const_cast<const volatile char*>(p); }

TEST(Mremap, Shrink) {
  Mapping m(4 * kPage);
  m.data()[0] = 1;
  char* p = m.Release();
  EXPECT_EQ(mremap(p, 4 * kPage, 2 * kPage, 0), p);
  EXPECT_EQ(p[0], 1);
  EXPECT_TRUE(Faults([&] { Touch(p + 2 * kPage); }));
  munmap(p, 2 * kPage);
}
TEST(Mremap, GrowInPlaceIntoAHole) {
  Mapping m(4 * kPage);
  char* p = m.Release();
  ASSERT_OK(munmap(p + 2 * kPage, 2 * kPage));
  EXPECT_EQ(mremap(p, 2 * kPage, 4 * kPage, 0), p);
  p[4 * kPage - 1] = 1;
  munmap(p, 4 * kPage);
}
TEST(Mremap, GrowBlockedWithoutMayMove) {
  Mapping m(4 * kPage);
  EXPECT_EQ(mremap(m.data(), kPage, 2 * kPage, 0), MAP_FAILED);
  EXPECT_EQ(errno, ENOMEM);
}
TEST(Mremap, MovesWithContents) {
  Mapping m(4 * kPage);
  for (size_t i = 0; i < 2; ++i) m.page(i)[7] = static_cast<char>(i + 1);
  auto* p = static_cast<char*>(mremap(m.data(), 2 * kPage, 8 * kPage, MREMAP_MAYMOVE));
  ASSERT_NE(p, MAP_FAILED);
  EXPECT_NE(p, m.data());
  EXPECT_EQ(p[7], 1);
  EXPECT_EQ(p[kPage + 7], 2);
  EXPECT_EQ(p[7 * kPage], 0);
  EXPECT_TRUE(Faults([&] { Touch(m.data()); }));
  munmap(p, 8 * kPage);
}
TEST(Mremap, FixedTarget) {
  Mapping target(4 * kPage), source(kPage);
  source.data()[0] = 42;
  target.page(1)[0] = 1;
  char* s = source.Release();
  ASSERT_EQ(mremap(s, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, target.page(1)), target.page(1));
  EXPECT_EQ(target.page(1)[0], 42);
  EXPECT_TRUE(Faults([&] { Touch(s); }));
}
TEST(Mremap, DontUnmapLeavesEmptyPages) {
  Mapping m(kPage);
  m.data()[0] = 5;
  auto* p = static_cast<char*>(mremap(m.data(), kPage, kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, nullptr));
  ASSERT_NE(p, MAP_FAILED);
  EXPECT_EQ(p[0], 5);
  EXPECT_EQ(m.data()[0], 0);
  munmap(p, kPage);
}
TEST(Mremap, ZeroOldSizeDuplicatesSharedMemory) {
  Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  auto* p = static_cast<char*>(mremap(m.data(), 0, kPage, MREMAP_MAYMOVE));
  ASSERT_NE(p, MAP_FAILED);
  p[0] = 8;
  EXPECT_EQ(m.data()[0], 8);
  munmap(p, kPage);
}
TEST(Mremap, Errors) {
  Mapping m(4 * kPage);
  const auto fails = [](void* result, int error) { return result == MAP_FAILED && errno == error; };
  EXPECT_TRUE(fails(mremap(m.data() + 1, kPage, kPage, 0), EINVAL));
  EXPECT_TRUE(fails(mremap(m.data(), kPage, 0, 0), EINVAL));
  EXPECT_TRUE(fails(mremap(m.data(), kPage, kPage, 0x80), EINVAL));
  EXPECT_TRUE(fails(mremap(m.data(), kPage, kPage, MREMAP_FIXED, m.page(2)), EINVAL));
  EXPECT_TRUE(fails(mremap(m.data(), 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, m.page(1)), EINVAL));
  ASSERT_OK(munmap(m.page(2), kPage));
  EXPECT_TRUE(fails(mremap(m.page(2), kPage, 2 * kPage, MREMAP_MAYMOVE), EFAULT));
}
TEST(Mremap, FileMappingKeepsItsOffset) {
  const TempDir dir;
  const ScopedFd fd(open(dir.File("f", std::string(kPage, 'a') + std::string(kPage, 'b')).c_str(), O_RDWR));
  Mapping m(kPage, PROT_READ, MAP_SHARED, fd.get());
  auto* p = static_cast<char*>(mremap(m.data(), kPage, 2 * kPage, MREMAP_MAYMOVE));
  ASSERT_NE(p, MAP_FAILED);
  EXPECT_EQ(p[kPage], 'b');
  if (p != m.data()) m.Release();
  munmap(p, 2 * kPage);
  m.Release();
}

TEST(Madvise, DontneedZerosAnonymousMemory) {
  const Mapping m(2 * kPage);
  m.data()[0] = 1;
  m.page(1)[0] = 2;
  ASSERT_OK(madvise(m.data(), kPage, MADV_DONTNEED));
  EXPECT_EQ(m.data()[0], 0);
  EXPECT_EQ(m.page(1)[0], 2);
}
TEST(Madvise, DontneedKeepsSharedMemory) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  m.data()[0] = 1;
  ASSERT_OK(madvise(m.data(), kPage, MADV_DONTNEED));
  EXPECT_EQ(m.data()[0], 1);
}
TEST(Madvise, DontneedRereadsPrivateFile) {
  const TempDir dir;
  const ScopedFd fd(open(dir.File("f", "original").c_str(), O_RDONLY));
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd.get());
  m.data()[0] = 'X';
  ASSERT_OK(madvise(m.data(), kPage, MADV_DONTNEED));
  EXPECT_EQ(m.data()[0], 'o');
}
TEST(Madvise, RemovePunchesSharedMemory) {
  const Mapping m(2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  m.data()[0] = 1;
  ASSERT_OK(madvise(m.data(), kPage, MADV_REMOVE));
  EXPECT_EQ(m.data()[0], 0);
}
TEST(Madvise, DontforkIsMissingInTheChild) {
  const Mapping m(2 * kPage);
  ASSERT_OK(madvise(m.data(), kPage, MADV_DONTFORK));
  EXPECT_TRUE(Faults([&] { Touch(m.data()); }));
  EXPECT_FALSE(Faults([&] { Touch(m.page(1)); }));
  ASSERT_OK(madvise(m.data(), kPage, MADV_DOFORK));
  EXPECT_FALSE(Faults([&] { Touch(m.data()); }));
}
TEST(Madvise, WipeonforkIsZeroInTheChild) {
  const Mapping m(kPage);
  m.data()[0] = 7;
  ASSERT_OK(madvise(m.data(), kPage, MADV_WIPEONFORK));
  EXPECT_TRUE(PassesInChild([&] { EXPECT_EQ(m.data()[0], 0); }));
  EXPECT_EQ(m.data()[0], 7);
}
class Advice : public testing::TestWithParam<int> {};
TEST_P(Advice, IsAcceptedAndKeepsContents) {
  const Mapping m(4 * kPage);
  m.data()[0] = 3;
  ASSERT_OK(madvise(m.data(), 4 * kPage, GetParam()));
  EXPECT_EQ(m.data()[0], 3);
}
INSTANTIATE_TEST_SUITE_P(, Advice,
                         testing::Values(MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTDUMP,
                                         MADV_DODUMP, MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ,
                                         MADV_POPULATE_WRITE));
TEST(Madvise, Errors) {
  const Mapping m(3 * kPage);
  EXPECT_FAIL(madvise(m.data() + 1, kPage, MADV_NORMAL), EINVAL);
  EXPECT_FAIL(madvise(m.data(), kPage, 9999), EINVAL);
  EXPECT_OK(madvise(m.data(), 0, MADV_NORMAL));
  ASSERT_OK(munmap(m.page(1), kPage));
  EXPECT_FAIL(madvise(m.data(), 3 * kPage, MADV_NORMAL), ENOMEM);
}
TEST(Madvise, FreeThenWriteKeepsTheWrite) {
  const Mapping m(kPage);
  m.data()[0] = 1;
  ASSERT_OK(madvise(m.data(), kPage, MADV_FREE));
  m.data()[0] = 2;
  EXPECT_EQ(m.data()[0], 2);
}

TEST(Mincore, TouchedPagesAreResident) {
  const Mapping m(3 * kPage);
  m.page(1)[0] = 1;
  unsigned char vec[3] = {};
  ASSERT_OK(mincore(m.data(), 3 * kPage, vec));
  EXPECT_EQ(vec[1] & 1, 1);
}
TEST(Madvise, MergeableIsRefusedWithoutKsm) {
  const Mapping m(kPage);
  if (Exists("/sys/kernel/mm/ksm")) GTEST_SKIP() << "this Linux merges pages";
  EXPECT_FAIL(madvise(m.data(), kPage, MADV_MERGEABLE), EINVAL);
  EXPECT_FAIL(madvise(m.data(), kPage, MADV_UNMERGEABLE), EINVAL);
}
TEST(Mincore, Errors) {
  const Mapping m(3 * kPage);
  unsigned char vec[3];
  EXPECT_FAIL(mincore(m.data() + 1, kPage, vec), EINVAL);
  EXPECT_FAIL(mincore(m.data(), kPage, reinterpret_cast<unsigned char*>(BadPointer())), EFAULT);
  ASSERT_OK(munmap(m.page(1), kPage));
  EXPECT_FAIL(mincore(m.data(), 3 * kPage, vec), ENOMEM);
}

TEST(Mlock, LocksAndUnlocks) {
  const Mapping m(2 * kPage);
  EXPECT_OK(mlock(m.data(), kPage));
  EXPECT_OK(munlock(m.data(), kPage));
  EXPECT_OK(mlock2(m.data(), kPage, MLOCK_ONFAULT));
  EXPECT_FAIL(mlock2(m.data(), kPage, 0x80), EINVAL);
  EXPECT_OK(munlock(m.data(), 2 * kPage));
}
bool AllResident(const Mapping& m) {
  std::vector<unsigned char> pages(m.size() / kPage);
  EXPECT_OK(mincore(m.data(), m.size(), pages.data()));
  return std::all_of(pages.begin(), pages.end(), [](unsigned char p) { return (p & 1) != 0; });
}
TEST(Mlock, LockedPagesAreResident) {
  const Mapping m(16 * kPage);
  EXPECT_FALSE(AllResident(m));
  ASSERT_OK(mlock(m.data(), m.size()));
  EXPECT_TRUE(AllResident(m));
}
TEST(Mlock, PopulatedPagesAreResident) {
  EXPECT_TRUE(AllResident(Mapping(16 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE)));
  EXPECT_TRUE(AllResident(Mapping(16 * kPage, PROT_READ, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE)));
  const Mapping advised(16 * kPage);
  ASSERT_OK(madvise(advised.data(), advised.size(), MADV_POPULATE_WRITE));
  EXPECT_TRUE(AllResident(advised));
}
TEST(Mlock, PopulatedPrivateFilePagesAreTheProcesssOwn) {
  const TempDir dir;
  const std::string path = dir.File("f", std::string(4 * kPage, 'a'));
  const ScopedFd fd(open(path.c_str(), O_RDWR));
  const Mapping m(4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_POPULATE, fd.get());
  ASSERT_EQ(pwrite(fd.get(), "b", 1, kPage), 1);
  EXPECT_EQ(m.page(1)[0], 'a');
}
TEST(Mlock, HoleIsEnomem) {
  const Mapping m(3 * kPage);
  ASSERT_OK(munmap(m.page(1), kPage));
  EXPECT_FAIL(mlock(m.data(), 3 * kPage), ENOMEM);
}
TEST(Mlock, LimitForUsers) {
  EXPECT_TRUE(PassesInChild([] {
    const rlimit limit = {kPage, kPage};
    ASSERT_OK(setrlimit(RLIMIT_MEMLOCK, &limit));
    BecomeUser(1000);
    const Mapping m(4 * kPage);
    EXPECT_OK(mlock(m.data(), kPage));
    EXPECT_FAIL(mlock(m.data(), 4 * kPage), ENOMEM);
  }));
}
TEST(Mlock, All) {
  EXPECT_TRUE(PassesInChild([] {
    EXPECT_OK(mlockall(MCL_CURRENT));
    EXPECT_OK(munlockall());
    EXPECT_FAIL(mlockall(0), EINVAL);
    EXPECT_FAIL(mlockall(0x100), EINVAL);
  }));
}

TEST(CopyOnWrite, ChildAndParentDiverge) {
  const Mapping m(64 * kPage);
  memset(m.data(), 'p', m.size());
  int to_child[2], to_parent[2];
  ASSERT_OK(pipe(to_child));
  ASSERT_OK(pipe(to_parent));
  const pid_t child = Spawn([&] {
    memset(m.data(), 'c', 32 * kPage);
    write(to_parent[1], "x", 1);
    char b;
    read(to_child[0], &b, 1);
    EXPECT_EQ(m.page(0)[0], 'c');
    EXPECT_EQ(m.page(40)[0], 'p');  // the parent's later write must not show here
  });
  char b;
  ASSERT_EQ(read(to_parent[0], &b, 1), 1);
  EXPECT_EQ(m.page(0)[0], 'p');
  memset(m.page(40), 'P', kPage);
  ASSERT_EQ(write(to_child[1], "x", 1), 1);
  EXPECT_EQ(WaitStatus(child), 0);
  for (int fd : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) close(fd);
}
TEST(CopyOnWrite, ThreeGenerations) {
  const Mapping m(kPage);
  m.data()[0] = 1;
  EXPECT_TRUE(PassesInChild([&] {
    m.data()[0] = 2;
    EXPECT_TRUE(PassesInChild([&] {
      EXPECT_EQ(m.data()[0], 2);
      m.data()[0] = 3;
    }));
    EXPECT_EQ(m.data()[0], 2);
  }));
  EXPECT_EQ(m.data()[0], 1);
}
TEST(CopyOnWrite, KernelWritesBreakSharingToo) {
  const Mapping m(kPage);
  m.data()[0] = 'o';
  const ScopedFd zero(open("/dev/zero", O_RDONLY));
  EXPECT_TRUE(PassesInChild([&] { EXPECT_EQ(read(zero.get(), m.data(), kPage), static_cast<ssize_t>(kPage)); }));
  EXPECT_EQ(m.data()[0], 'o');
}

TEST(ProcessVm, ReadAndWriteAChild) {
  const Mapping m(2 * kPage);
  strcpy(m.data(), "parent");
  const PausedChild child;
  char b[16] = {};
  const iovec local = {b, sizeof b}, remote = {m.data(), 7};
  EXPECT_EQ(process_vm_readv(child.pid(), &local, 1, &remote, 1, 0), 7);
  EXPECT_STREQ(b, "parent");
  char text[] = "poked";
  const iovec out = {text, 6};
  EXPECT_EQ(process_vm_writev(child.pid(), &out, 1, &remote, 1, 0), 6);
  EXPECT_EQ(process_vm_readv(child.pid(), &local, 1, &remote, 1, 0), 7);
  EXPECT_STREQ(b, "poked");
  EXPECT_STREQ(m.data(), "parent");
}
TEST(ProcessVm, Errors) {
  char b[8];
  const iovec local = {b, sizeof b}, bad = {BadPointer(), 8};
  EXPECT_FAIL(process_vm_readv(999'999, &local, 1, &local, 1, 0), ESRCH);
  EXPECT_FAIL(process_vm_readv(getpid(), &local, 1, &bad, 1, 0), EFAULT);
  EXPECT_FAIL(process_vm_readv(getpid(), &local, 1, &local, 1, 1), EINVAL);
  const PausedChild child;
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_FAIL(process_vm_readv(child.pid(), &local, 1, &local, 1, 0), EPERM); }));
}

}  // namespace
}  // namespace moat::guest
