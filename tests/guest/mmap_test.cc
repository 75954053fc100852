// mmap(2), munmap(2), mprotect(2), msync(2), brk(2).
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

// The signal that kills a child which runs `body`; 0 when none does.
int KilledBy(const std::function<void()>& body) {
  const int status = StatusOf(body);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}
void Touch(const char* p) { [[maybe_unused]] const char c = *const_cast<const volatile char*>(p); }
void Poke(char* p) { *const_cast<volatile char*>(p) = 1; }

class Mmap : public testing::Test {
 protected:
  void SetUp() override {
    std::string content(2 * kPage + 100, '\0');
    for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>('a' + i / kPage);
    path_ = dir_.File("f", content);
    fd_.Reset(open(path_.c_str(), O_RDWR));
  }
  int fd() const { return fd_.get(); }
  static void* Map(void* at, size_t size, int prot, int flags, int fd = -1, off_t offset = 0) {
    return mmap(at, size, prot, flags, fd, offset);
  }
  static bool Fails(void* result, int error) { return result == MAP_FAILED && errno == error; }
  TempDir dir_;
  std::string path_;
  ScopedFd fd_;
};

TEST_F(Mmap, AnonymousIsZeroAndWritable) {
  const Mapping m(3 * kPage);
  for (size_t i = 0; i < m.size(); i += 511) ASSERT_EQ(m.data()[i], 0);
  m.data()[2 * kPage] = 5;
  EXPECT_EQ(m.data()[2 * kPage], 5);
}
TEST_F(Mmap, LengthIsRoundedUp) {
  const Mapping m(1);
  m.data()[kPage - 1] = 1;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(m.data()) % kPage, 0u);
}
TEST_F(Mmap, ArgumentErrors) {
  EXPECT_TRUE(Fails(Map(nullptr, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS), EINVAL));
  EXPECT_TRUE(Fails(Map(nullptr, kPage, PROT_READ, MAP_ANONYMOUS), EINVAL));
  EXPECT_TRUE(Fails(Map(nullptr, kPage, PROT_READ, MAP_PRIVATE, -1), EBADF));
  EXPECT_TRUE(Fails(Map(nullptr, kPage, PROT_READ, MAP_PRIVATE, fd(), 100), EINVAL));
  EXPECT_TRUE(Fails(Map(nullptr, SIZE_MAX - kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS), ENOMEM));
  EXPECT_TRUE(Fails(Map(reinterpret_cast<void*>(kPage + 1), kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED),
                    EINVAL));
  EXPECT_TRUE(
      Fails(Map(reinterpret_cast<void*>(0x7ffffffff000), 2 * kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED),
            ENOMEM));
}
TEST_F(Mmap, FileAccessModes) {
  const ScopedFd r(open(path_.c_str(), O_RDONLY)), w(open(path_.c_str(), O_WRONLY));
  EXPECT_TRUE(Fails(Map(nullptr, kPage, PROT_READ, MAP_PRIVATE, w.get()), EACCES));
  EXPECT_TRUE(Fails(Map(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, r.get()), EACCES));
  const Mapping copy(kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, r.get());
  copy.data()[0] = 'Z';
  EXPECT_EQ(ReadFile(path_)[0], 'a');
}
TEST_F(Mmap, DirectoriesAndPipesCannotBeMapped) {
  const ScopedFd at = dir_.Open();
  EXPECT_TRUE(Fails(Map(nullptr, kPage, PROT_READ, MAP_PRIVATE, at.get()), ENODEV));
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  EXPECT_TRUE(Fails(Map(nullptr, kPage, PROT_READ, MAP_PRIVATE, r.get()), ENODEV));
}
TEST_F(Mmap, PrivateFileReads) {
  const Mapping m(2 * kPage, PROT_READ, MAP_PRIVATE, fd());
  EXPECT_EQ(m.data()[0], 'a');
  EXPECT_EQ(m.data()[kPage], 'b');
}
TEST_F(Mmap, FileOffset) {
  const Mapping m(kPage, PROT_READ, MAP_SHARED, fd(), kPage);
  EXPECT_EQ(m.data()[0], 'b');
}
TEST_F(Mmap, SharedWritesReachTheFile) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd());
  m.data()[10] = 'X';
  EXPECT_EQ(ReadFile(path_)[10], 'X');
  ASSERT_EQ(pwrite(fd(), "Y", 1, 11), 1);
  EXPECT_EQ(m.data()[11], 'Y');
}
TEST_F(Mmap, PrivateWritesStayPrivate) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd());
  m.data()[0] = 'P';
  EXPECT_EQ(ReadFile(path_)[0], 'a');
  ASSERT_EQ(pwrite(fd(), "Q", 1, 0), 1);
  EXPECT_EQ(m.data()[0], 'P');
}
TEST_F(Mmap, TailOfLastPageIsZero) {
  const Mapping m(3 * kPage, PROT_READ, MAP_SHARED, fd());
  EXPECT_EQ(m.data()[2 * kPage + 99], 'c');
  EXPECT_EQ(m.data()[2 * kPage + 100], 0);
  EXPECT_EQ(m.data()[3 * kPage - 1], 0);
}
TEST_F(Mmap, BeyondTheFileIsSigbus) {
  const Mapping m(4 * kPage, PROT_READ, MAP_SHARED, fd());
  EXPECT_EQ(KilledBy([&] { Touch(m.page(3)); }), SIGBUS);
}
TEST_F(Mmap, TruncateTakesPagesAway) {
  const Mapping m(2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd());
  Touch(m.page(1));
  ASSERT_OK(ftruncate(fd(), kPage));
  EXPECT_EQ(KilledBy([&] { Touch(m.page(1)); }), SIGBUS);
  ASSERT_OK(ftruncate(fd(), 2 * kPage));
  EXPECT_EQ(m.page(1)[0], 0);
}
TEST_F(Mmap, TruncateTakesPrivateCopiesToo) {
  const Mapping m(3 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd());
  for (int i = 0; i < 3; ++i) m.page(i)[1] = 'P';
  ASSERT_OK(ftruncate(fd(), kPage + 10));
  EXPECT_EQ(KilledBy([&] { Touch(m.page(2)); }), SIGBUS);
  ASSERT_OK(ftruncate(fd(), 3 * kPage));
  EXPECT_EQ(m.page(0)[1], 'P');
  EXPECT_EQ(m.page(1)[1], 'P');  // the page that the end is in stays
  EXPECT_EQ(m.page(2)[1], 0);
}
TEST_F(Mmap, AHoleLeavesPrivateCopies) {
  const ScopedFd fd(memfd_create("hole", 0));
  ASSERT_OK(ftruncate(fd.get(), 2 * kPage));
  const Mapping m(2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd.get());
  m.page(1)[1] = 'P';
  ASSERT_OK(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * kPage));
  EXPECT_EQ(m.page(1)[1], 'P');
}
TEST_F(Mmap, MappingOutlivesTheDescriptor) {
  const Mapping m(kPage, PROT_READ, MAP_SHARED, fd());
  fd_.Reset();
  ASSERT_OK(unlink(path_.c_str()));
  EXPECT_EQ(m.data()[5], 'a');
}
TEST_F(Mmap, ProtNoneFaults) {
  const Mapping m(kPage, PROT_NONE);
  EXPECT_EQ(KilledBy([&] { Touch(m.data()); }), SIGSEGV);
}
TEST_F(Mmap, ReadOnlyFaultsOnWrite) {
  const Mapping m(kPage, PROT_READ);
  Touch(m.data());
  EXPECT_EQ(KilledBy([&] { Poke(m.data()); }), SIGSEGV);
}
TEST_F(Mmap, UnmappedFaults) {
  Mapping m(kPage);
  char* p = m.Release();
  ASSERT_OK(munmap(p, kPage));
  EXPECT_EQ(KilledBy([&] { Touch(p); }), SIGSEGV);
}
TEST_F(Mmap, ExecuteNeedsProtExec) {
  const Mapping m(kPage);
  m.data()[0] = static_cast<char>(0xc3);  // ret
  EXPECT_EQ(KilledBy([&] { reinterpret_cast<void (*)()>(m.data())(); }), SIGSEGV);
  ASSERT_OK(mprotect(m.data(), kPage, PROT_READ | PROT_EXEC));
  EXPECT_EQ(KilledBy([&] { reinterpret_cast<void (*)()>(m.data())(); }), 0);
}
TEST_F(Mmap, FixedReplaces) {
  const Mapping m(3 * kPage);
  m.page(1)[0] = 1;
  ASSERT_EQ(Map(m.page(1), kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED), m.page(1));
  EXPECT_EQ(m.page(1)[0], 0);
}
TEST_F(Mmap, FixedNoreplace) {
  const Mapping m(3 * kPage);
  EXPECT_TRUE(Fails(Map(m.page(1), kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE), EEXIST));
  ASSERT_OK(munmap(m.page(1), kPage));
  EXPECT_EQ(Map(m.page(1), kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE), m.page(1));
}
TEST_F(Mmap, TypeIsCheckedBeforeAccess) {
  const ScopedFd w(open(path_.c_str(), O_WRONLY));
  EXPECT_TRUE(Fails(Map(nullptr, kPage, PROT_READ, 0, w.get()), EINVAL));
  EXPECT_TRUE(Fails(Map(nullptr, kPage, PROT_READ, MAP_PRIVATE, w.get()), EACCES));
}
TEST_F(Mmap, HintIsUsedWhenFree) {
  Mapping m(4 * kPage);
  char* hint = m.Release();
  ASSERT_OK(munmap(hint, 4 * kPage));
  void* got = Map(hint, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS);
  EXPECT_EQ(got, hint);
  munmap(got, kPage);
}
TEST_F(Mmap, HintIsIgnoredWhenTaken) {
  const Mapping m(kPage);
  m.data()[0] = 3;
  void* got = Map(m.data(), kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS);
  EXPECT_NE(got, m.data());
  EXPECT_EQ(m.data()[0], 3);
  munmap(got, kPage);
}
TEST_F(Mmap, Map32Bit) {
  void* p = Map(nullptr, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT);
  ASSERT_NE(p, MAP_FAILED);
  EXPECT_LT(reinterpret_cast<uintptr_t>(p), 1ull << 31);
  munmap(p, kPage);
}
TEST_F(Mmap, LowAddressNeedsPrivilege) {
  EXPECT_TRUE(PassesAsUser(1000, [] {
    EXPECT_TRUE(Fails(Map(nullptr, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED), EPERM));
  }));
}
TEST_F(Mmap, SharedAnonymousIsSharedWithChildren) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  EXPECT_TRUE(PassesInChild([&] { m.data()[0] = 77; }));
  EXPECT_EQ(m.data()[0], 77);
}
TEST_F(Mmap, PopulateAndNoreserve) {
  const Mapping m(64 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_NORESERVE);
  EXPECT_EQ(m.page(63)[0], 0);
}
TEST_F(Mmap, HugeSparseReservation) {
  const Mapping m(size_t{1} << 31, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  m.data()[(size_t{1} << 31) - 1] = 1;
  EXPECT_EQ(m.data()[0], 0);
}
TEST_F(Mmap, SharedValidateRefusesUnknownFlags) {
  EXPECT_TRUE(Fails(Map(nullptr, kPage, PROT_READ, MAP_SHARED_VALIDATE | (1 << 22), fd()), EOPNOTSUPP));
  void* p = Map(nullptr, kPage, PROT_READ, MAP_SHARED_VALIDATE, fd());
  EXPECT_NE(p, MAP_FAILED);
  munmap(p, kPage);
}
TEST_F(Mmap, AddressSpaceLimit) {
  EXPECT_TRUE(PassesInChild([] {
    const rlimit limit = {256 << 20, 256 << 20};
    ASSERT_OK(setrlimit(RLIMIT_AS, &limit));
    EXPECT_TRUE(Fails(Map(nullptr, 300 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS), ENOMEM));
  }));
}

TEST_F(Mmap, MunmapPartSplits) {
  const Mapping m(3 * kPage);
  m.page(2)[0] = 2;
  ASSERT_OK(munmap(m.page(1), kPage));
  EXPECT_EQ(m.page(2)[0], 2);
  EXPECT_EQ(KilledBy([&] { Touch(m.page(1)); }), SIGSEGV);
}
TEST_F(Mmap, MunmapErrors) {
  const Mapping m(kPage);
  EXPECT_FAIL(munmap(m.data() + 1, kPage), EINVAL);
  EXPECT_FAIL(munmap(m.data(), 0), EINVAL);
  EXPECT_FAIL(munmap(m.data(), SIZE_MAX), EINVAL);
}
TEST_F(Mmap, MunmapOfHoleIsFine) {
  const Mapping m(2 * kPage);
  ASSERT_OK(munmap(m.page(1), kPage));
  EXPECT_OK(munmap(m.page(1), kPage));
}

TEST_F(Mmap, MprotectChangesAndRestores) {
  const Mapping m(2 * kPage);
  m.data()[0] = 4;
  ASSERT_OK(mprotect(m.data(), kPage, PROT_READ));
  EXPECT_EQ(KilledBy([&] { Poke(m.data()); }), SIGSEGV);
  Poke(m.page(1));
  ASSERT_OK(mprotect(m.data(), kPage, PROT_READ | PROT_WRITE));
  Poke(m.data());
}
TEST_F(Mmap, MprotectKeepsContentsThroughNone) {
  const Mapping m(kPage);
  m.data()[9] = 9;
  ASSERT_OK(mprotect(m.data(), kPage, PROT_NONE));
  ASSERT_OK(mprotect(m.data(), kPage, PROT_READ));
  EXPECT_EQ(m.data()[9], 9);
}
TEST_F(Mmap, MprotectErrors) {
  const Mapping m(3 * kPage);
  EXPECT_FAIL(mprotect(m.data() + 1, kPage, PROT_READ), EINVAL);
  EXPECT_FAIL(mprotect(m.data(), kPage, 0x1000), EINVAL);
  EXPECT_OK(mprotect(m.data(), 0, PROT_READ));
  ASSERT_OK(munmap(m.page(1), kPage));
  EXPECT_FAIL(mprotect(m.data(), 3 * kPage, PROT_READ), ENOMEM);
}
TEST_F(Mmap, MprotectSharedReadOnlyFileCannotBecomeWritable) {
  const ScopedFd r(open(path_.c_str(), O_RDONLY));
  const Mapping m(kPage, PROT_READ, MAP_SHARED, r.get());
  EXPECT_FAIL(mprotect(m.data(), kPage, PROT_READ | PROT_WRITE), EACCES);
}
TEST_F(Mmap, CallsSeeProtection) {  // the kernel's own access obeys the page protection
  const Mapping m(kPage, PROT_READ);
  EXPECT_FAIL(pread(fd(), m.data(), 10, 0), EFAULT);
  EXPECT_EQ(pwrite(fd(), m.data(), 10, 0), 10);
}

TEST_F(Mmap, MsyncFlags) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd());
  m.data()[0] = 'S';
  EXPECT_OK(msync(m.data(), kPage, MS_SYNC));
  EXPECT_OK(msync(m.data(), kPage, MS_ASYNC | MS_INVALIDATE));
  EXPECT_FAIL(msync(m.data(), kPage, MS_SYNC | MS_ASYNC), EINVAL);
  EXPECT_FAIL(msync(m.data() + 1, kPage, MS_SYNC), EINVAL);
  EXPECT_FAIL(msync(m.data(), kPage, 0x80), EINVAL);
}
TEST_F(Mmap, MsyncOfHole) {
  const Mapping m(2 * kPage);
  ASSERT_OK(munmap(m.page(1), kPage));
  EXPECT_FAIL(msync(m.data(), 2 * kPage, MS_SYNC), ENOMEM);
}
TEST_F(Mmap, RemapFilePagesShowsAnotherPage) {
  Mapping m(2 * kPage, PROT_READ, MAP_SHARED, fd());
  ASSERT_EQ(m.page(0)[0], 'a');
  ASSERT_OK(syscall(SYS_remap_file_pages, m.page(0), kPage, 0, 1, 0));
  EXPECT_EQ(m.page(0)[0], 'b');
  EXPECT_EQ(m.page(1)[0], 'b');
  ASSERT_OK(syscall(SYS_remap_file_pages, m.data(), 2 * kPage, 0, 0, 0));
  EXPECT_EQ(m.page(0)[0], 'a');
  EXPECT_FAIL(syscall(SYS_remap_file_pages, m.data(), kPage, PROT_READ, 0, 0), EINVAL);
  EXPECT_FAIL(syscall(SYS_remap_file_pages, m.data(), 0, 0, 0, 0), EINVAL);
  const Mapping own(kPage);
  EXPECT_FAIL(syscall(SYS_remap_file_pages, own.data(), kPage, 0, 0, 0), EINVAL);
}
constexpr long kMseal = 462;  // mseal(2), since Linux 6.10
TEST_F(Mmap, SealedMemoryStaysAsItIs) {
  EXPECT_TRUE(PassesInChild([&] {  // the sealed pages go with the child
    char* const p = Mapping(3 * kPage, PROT_READ).Release();
    char* const q = p + kPage;
    const long sealed = syscall(kMseal, q, kPage, 0);
    if (sealed == -1 && errno == ENOSYS) return;
    ASSERT_OK(sealed);
    EXPECT_FAIL(mprotect(q, kPage, PROT_READ | PROT_WRITE), EPERM);
    EXPECT_FAIL(munmap(p, 3 * kPage), EPERM);
    EXPECT_TRUE(Fails(Map(q, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED), EPERM));
    EXPECT_TRUE(Fails(mremap(q, kPage, 2 * kPage, MREMAP_MAYMOVE), EPERM));
    EXPECT_TRUE(Fails(mremap(p, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, q), EPERM));
    EXPECT_FAIL(madvise(q, kPage, MADV_DONTNEED), EPERM);
    EXPECT_OK(madvise(q, kPage, MADV_RANDOM));
    Touch(p);
    EXPECT_OK(munmap(p, kPage));
    EXPECT_OK(munmap(q + kPage, kPage));
    EXPECT_OK(syscall(kMseal, q, kPage, 0));
    EXPECT_FAIL(syscall(kMseal, q, 2 * kPage, 0), ENOMEM);
    EXPECT_FAIL(syscall(kMseal, q + 1, kPage, 0), EINVAL);
    EXPECT_FAIL(syscall(kMseal, q, kPage, 1), EINVAL);
    EXPECT_OK(syscall(kMseal, q, 0, 0));
  }));
}
TEST_F(Mmap, SealedWritableMemoryMayBeDiscarded) {
  EXPECT_TRUE(PassesInChild([&] {
    char* const p = Mapping(kPage).Release();
    const long sealed = syscall(kMseal, p, kPage, 0);
    if (sealed == -1 && errno == ENOSYS) return;
    p[0] = 1;
    EXPECT_OK(madvise(p, kPage, MADV_DONTNEED));
    EXPECT_EQ(p[0], 0);
    EXPECT_FAIL(munmap(p, kPage), EPERM);
  }));
}
TEST_F(Mmap, BrkGrowsAndShrinks) {
  EXPECT_TRUE(PassesInChild([] {
    const uintptr_t start = syscall(SYS_brk, 0);
    const uintptr_t base = (start + kPage - 1) / kPage * kPage;
    ASSERT_EQ(static_cast<uintptr_t>(syscall(SYS_brk, base + 4 * kPage)), base + 4 * kPage);
    auto* p = reinterpret_cast<char*>(base);
    EXPECT_EQ(p[3 * kPage], 0);
    p[3 * kPage] = 1;
    ASSERT_EQ(static_cast<uintptr_t>(syscall(SYS_brk, base + kPage)), base + kPage);
    ASSERT_EQ(static_cast<uintptr_t>(syscall(SYS_brk, base + 4 * kPage)), base + 4 * kPage);
    EXPECT_EQ(p[3 * kPage], 0);  // pages come back empty
  }));
}
TEST_F(Mmap, BrkBelowTheStartIsRefused) {
  const long now = syscall(SYS_brk, 0);
  EXPECT_EQ(syscall(SYS_brk, 4096), now);
}
TEST_F(Mmap, BrkObeysDataLimit) {
  EXPECT_TRUE(PassesInChild([] {
    const long now = syscall(SYS_brk, 0);
    const rlimit limit = {kPage, kPage};
    ASSERT_OK(setrlimit(RLIMIT_DATA, &limit));
    EXPECT_EQ(syscall(SYS_brk, now + (64 << 20)), now);
  }));
}
TEST_F(Mmap, StackGrowsOnDemand) {
  EXPECT_TRUE(PassesInChild([] {
    volatile char big[1 << 20];
    for (size_t i = sizeof big; i >= kPage; i -= kPage) big[i - kPage] = 1;
    EXPECT_EQ(big[0], 1);
  }));
}
TEST_F(Mmap, StackLimitIsSigsegv) {
  EXPECT_EQ(KilledBy([] {
              const rlimit limit = {1 << 20, 1 << 20};
              setrlimit(RLIMIT_STACK, &limit);
              char* volatile deep = static_cast<char*>(__builtin_frame_address(0));
              for (int i = 0; i < 1024; ++i) {
                deep = deep - kPage;
                *deep = 1;
              }
            }),
            SIGSEGV);
}
TEST_F(Mmap, GrowsdownMapping) {
  const Mapping around(64 * kPage, PROT_NONE);
  char* top = around.page(40);
  ASSERT_OK(munmap(around.page(1), 62 * kPage));
  ASSERT_EQ(Map(top, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED), top);
  Poke(top);
  EXPECT_EQ(KilledBy([&] { Poke(top - 8); }), 0);
}

// The times of a file whose bytes change through mappings.
class MappedTimes : public Mmap {
 protected:
  void SetUp() override {
    Mmap::SetUp();
    Age();
  }
  void Age() {
    const timespec old[2] = {{1000, 0}, {1000, 0}};
    ASSERT_OK(futimens(fd(), old));
    struct stat st;
    ASSERT_OK(fstat(fd(), &st));
    changed_ = st.st_ctim;
  }
  time_t Modified() const {
    struct stat st = {};
    EXPECT_OK(fstat(fd(), &st));
    return st.st_mtim.tv_sec;
  }
  timespec changed_;
};
TEST_F(MappedTimes, TheFirstStoreChangesThem) {
  {
    const Mapping read(2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd());
    EXPECT_EQ(read.data()[0], 'a');
  }
  const Mapping m(2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd());
  EXPECT_EQ(Modified(), 1000) << "only mapped and read";
  usleep(20'000);  // time stamps are of the tick
  Poke(m.page(1));
  EXPECT_GT(Modified(), 1000);
  struct stat st;
  ASSERT_OK(stat(path_.c_str(), &st));
  EXPECT_GT(st.st_ctim.tv_sec * 1'000'000'000 + st.st_ctim.tv_nsec, changed_.tv_sec * 1'000'000'000 + changed_.tv_nsec);
  // What is set afterwards stays.
  Age();
  EXPECT_EQ(Modified(), 1000);
}
TEST_F(MappedTimes, NotByPrivateOrReadOnlyMappings) {
  const Mapping p(kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd());
  Poke(p.data());
  // Not read before: Linux's tmpfs maps what was read for stores, and sees none afterwards.
  const Mapping r(kPage, PROT_READ, MAP_SHARED, fd());
  EXPECT_EQ(Modified(), 1000);
  ASSERT_OK(mprotect(r.data(), kPage, PROT_READ | PROT_WRITE));
  EXPECT_EQ(Modified(), 1000);
  Poke(r.data());
  EXPECT_GT(Modified(), 1000);
}
TEST_F(MappedTimes, ByTheKernelsStores) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd());
  const ScopedFd zero(open("/dev/zero", O_RDONLY));
  ASSERT_EQ(read(zero.get(), m.data(), 10), 10);
  EXPECT_EQ(m.data()[0], 0);
  EXPECT_GT(Modified(), 1000);
}
TEST_F(MappedTimes, ByAnotherProcess) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd());
  EXPECT_TRUE(PassesInChild([&] { Poke(m.data()); }));
  EXPECT_EQ(m.data()[0], 1);
  EXPECT_GT(Modified(), 1000);
}
TEST_F(MappedTimes, GrownFileAndHoles) {
  ASSERT_OK(ftruncate(fd(), 100 * kPage));
  Age();
  const Mapping m(100 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd());
  Poke(m.page(50));
  EXPECT_GT(Modified(), 1000);
  Poke(m.page(3));
  Poke(m.page(99));
  ASSERT_OK(msync(m.data(), m.size(), MS_SYNC));
  Poke(m.page(50) + 1);
  std::string content = ReadFile(path_);
  EXPECT_EQ(content[50 * kPage], 1);
  EXPECT_EQ(content[50 * kPage + 1], 1);
  EXPECT_EQ(content[99 * kPage], 1);
  EXPECT_EQ(content[3 * kPage], 1);
  EXPECT_EQ(content[0], 'a');
}

}  // namespace
}  // namespace moat::guest
