// Hot `syscall` instructions in code that the program changes, moves, unmaps, or has from a file.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "tests/guest/support/call_site.h"
#include "tests/guest/support/child.h"
#include "tests/guest/support/signals.h"

namespace moat::guest {
namespace {

constexpr int kExecutable = PROT_READ | PROT_EXEC, kWritable = PROT_READ | PROT_WRITE;

long RunAt(const void* code, long a = 0, long b = 0, long c = 0) {
  return reinterpret_cast<CallFn*>(reinterpret_cast<uintptr_t>(code))(a, b, c);
}
// Every surrounding of a `mov $nr, %eax; syscall`.
class CallSiteCode : public testing::TestWithParam<bool> {
 protected:
  static Bytes Site(uint32_t number) { return GetParam() ? Dense(Call(number)) : Padded(Call(number)); }
  // A file of two pages with the site at kCodeOffset.
  static std::string Image(uint32_t number) {
    const Bytes site = Site(number);
    std::string image(2 * kPage, '\xcc');
    std::copy(site.begin(), site.end(), image.begin() + kCodeOffset);
    return image;
  }
  const Identity truth_ = TrueIdentity();
};

TEST_P(CallSiteCode, WritableCodeIsRewrittenInPlace) {
  const Mapping memory(kPage, PROT_READ | PROT_WRITE | PROT_EXEC);
  char* const at = memory.data() + kCodeOffset;
  int wrong = 0;
  for (int round = 0; round < 3; ++round) {
    for (size_t call = 0; call < kIdentityCalls.size(); ++call) {
      const Bytes site = Site(kIdentityCalls[call]);
      memcpy(at, site.data(), site.size());
      Heat([&] { wrong += RunAt(at) != truth_[call]; });
      EXPECT_EQ(memcmp(at, site.data(), site.size()), 0);
    }
  }
  EXPECT_EQ(wrong, 0);
}
TEST_P(CallSiteCode, RewrittenWhileItIsWritable) {
  Code code(Site(SYS_getpid));
  int wrong = 0;
  for (int round = 0; round < 3; ++round) {
    for (size_t call = 0; call < kIdentityCalls.size(); ++call) {
      code.Rewrite(Site(kIdentityCalls[call]));
      Heat([&] { wrong += code() != truth_[call]; });
    }
  }
  EXPECT_EQ(wrong, 0);
}
TEST_P(CallSiteCode, OnlyTheImmediateIsRewritten) {
  Code code(Site(SYS_getpid));
  int wrong = 0;
  for (size_t call = 0; call < kIdentityCalls.size(); ++call) {
    ASSERT_OK(mprotect(code.page(), kPage, kWritable));
    const uint32_t number = static_cast<uint32_t>(kIdentityCalls[call]);
    memcpy(code.at(1), &number, sizeof number);
    ASSERT_OK(mprotect(code.page(), kPage, kExecutable));
    Heat([&] { wrong += code() != truth_[call]; });
  }
  EXPECT_EQ(wrong, 0);
}
TEST_P(CallSiteCode, BytesAreBackWhenItIsWritable) {
  const Bytes site = Site(SYS_getpid);
  const Code code(site);
  Heat([&] { (void)code(); });
  ASSERT_OK(mprotect(code.page(), kPage, kWritable));
  EXPECT_EQ(memcmp(code.at(), site.data(), Call(0).size() + kRet.size()), 0);
}
TEST_P(CallSiteCode, PrivateFileMapping) {
  const TempDir dir;
  const std::string path = dir.File("code", Image(SYS_getpid));
  const ScopedFd fd(open(path.c_str(), O_RDONLY));
  const Mapping memory(2 * kPage, kExecutable, MAP_PRIVATE, fd.get());
  char* const at = memory.data() + kCodeOffset;
  int wrong = 0;
  Heat([&] { wrong += RunAt(at) != truth_[0]; });
  EXPECT_EQ(ReadFile(path), Image(SYS_getpid));
  ASSERT_OK(mprotect(memory.data(), memory.size(), kWritable));
  const Bytes site = Site(SYS_getppid);
  memcpy(at, site.data(), site.size());
  ASSERT_OK(mprotect(memory.data(), memory.size(), kExecutable));
  Heat([&] { wrong += RunAt(at) != truth_[2]; });
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(ReadFile(path), Image(SYS_getpid));
  // Back to the file's.
  ASSERT_OK(madvise(memory.data(), memory.size(), MADV_DONTNEED));
  Heat([&] { wrong += RunAt(at) != truth_[0]; });
  EXPECT_EQ(wrong, 0);
}
TEST_P(CallSiteCode, SharedFileMapping) {
  const TempDir dir;
  const std::string path = dir.File("code", Image(SYS_getpid));
  const ScopedFd fd(open(path.c_str(), O_RDWR));
  const Mapping memory(2 * kPage, kExecutable, MAP_SHARED, fd.get());
  char* const at = memory.data() + kCodeOffset;
  int wrong = 0;
  Heat([&] { wrong += RunAt(at) != truth_[0]; });
  EXPECT_EQ(ReadFile(path), Image(SYS_getpid));
  const uint32_t number = SYS_gettid;
  ASSERT_EQ(pwrite(fd.get(), &number, sizeof number, kCodeOffset + 1), 4);
  Heat([&] { wrong += RunAt(at) != truth_[1]; });
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(ReadFile(path), Image(SYS_gettid));
}
TEST_P(CallSiteCode, MapsIsStillThere) {
  const Code code(Site(SYS_getpid));
  Heat([&] { (void)code(); });
  std::istringstream maps(ReadFile("/proc/self/maps"));
  std::string line;
  bool found = false;
  unsigned long last = 0;
  while (std::getline(maps, line)) {
    unsigned long start, end, offset, inode;
    unsigned major, minor;
    char prot[5];
    ASSERT_EQ(sscanf(line.c_str(), "%lx-%lx %4s %lx %x:%x %lu", &start, &end, prot, &offset, &major, &minor, &inode), 7)
        << line;
    EXPECT_LE(last, start) << line;
    EXPECT_LT(start, end) << line;
    last = end;
    const auto at = reinterpret_cast<unsigned long>(code.page());
    if (at < start || at >= end) continue;
    found = true;
    EXPECT_STREQ(prot, "r-xp");
  }
  EXPECT_TRUE(found);
}
TEST_P(CallSiteCode, MovedMappingKeepsWorking) {
  const Bytes site = Site(SYS_getpid);
  Mapping memory(kPage), room(kPage);
  memcpy(memory.data() + kCodeOffset, site.data(), site.size());
  ASSERT_OK(mprotect(memory.data(), kPage, kExecutable));
  int wrong = 0;
  Heat([&] { wrong += RunAt(memory.data() + kCodeOffset) != truth_[0]; });
  ASSERT_EQ(mremap(memory.data(), kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, room.data()), room.data());
  memory.Release();
  EXPECT_EQ(memcmp(room.data() + kCodeOffset, site.data(), Call(0).size() + kRet.size()), 0);
  Heat([&] { wrong += RunAt(room.data() + kCodeOffset) != truth_[0]; });
  EXPECT_EQ(wrong, 0);
}
TEST_P(CallSiteCode, OtherCodeAtTheSameAddress) {
  const Mapping memory(kPage);
  char* const at = memory.data() + kCodeOffset;
  int wrong = 0;
  for (size_t call = 0; call < kIdentityCalls.size(); ++call) {
    ASSERT_EQ(mmap(memory.data(), kPage, kWritable, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), memory.data());
    const Bytes site = Site(kIdentityCalls[call]);
    memcpy(at, site.data(), site.size());
    ASSERT_OK(mprotect(memory.data(), kPage, kExecutable));
    Heat([&] { wrong += RunAt(at) != truth_[call]; });
  }
  EXPECT_EQ(wrong, 0);
}

volatile uintptr_t trap_ip;
void NoteTrap(int, siginfo_t*, void* context) {
  trap_ip = static_cast<uintptr_t>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
}
TEST_P(CallSiteCode, BreakpointWhereTheCallWas) {
  const ScopedAction action(SIGTRAP, NoteTrap);
  const Bytes trap = Bytes(5, 0x90) + kBreakpoint + Bytes{0x90};
  Code code(Site(SYS_getpid));
  Heat([&] { (void)code(); });
  // As a debugger in the process has it.
  code.Rewrite(trap);
  trap_ip = 0;
  (void)code();
  EXPECT_EQ(trap_ip, reinterpret_cast<uintptr_t>(code.at(6)));
  // And other code altogether.
  const Mapping memory(kPage);
  char* const at = memory.data() + (GetParam() ? 3 : 2) * 1024;
  for (bool with_trap : {false, true}) {
    ASSERT_EQ(mmap(memory.data(), kPage, kWritable, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), memory.data());
    Bytes site = Site(SYS_getpid);
    if (with_trap) std::copy(trap.begin(), trap.end(), site.begin());
    memcpy(at, site.data(), site.size());
    ASSERT_OK(mprotect(memory.data(), kPage, kExecutable));
    trap_ip = 0;
    if (with_trap) {
      (void)RunAt(at);
      EXPECT_EQ(trap_ip, reinterpret_cast<uintptr_t>(at + 6));
    } else {
      Heat([&] { (void)RunAt(at); });
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Surroundings, CallSiteCode, testing::Bool());

// A site whose bytes, or whose padding, lie on either side of a page's end; then one of the pages becomes new.
TEST(CallSitePages, EitherPageIsReplaced) {
  const TempDir dir;
  const long pid = TrueIdentity()[0];
  for (size_t before = 0; before <= 40; ++before) {
    const Bytes site = Padded(Call(SYS_getpid));
    std::string image(2 * kPage, '\xcc');
    std::copy(site.begin(), site.end(), image.begin() + static_cast<ptrdiff_t>(kPage - before));
    const std::string path = dir.File("code", image);
    const ScopedFd fd(open(path.c_str(), O_RDONLY));
    for (size_t page : {0, 1}) {
      const Mapping memory(2 * kPage, kExecutable, MAP_PRIVATE, fd.get());
      char* const at = memory.page(1) - before;
      int wrong = 0;
      Heat([&] { wrong += RunAt(at) != pid; });
      ASSERT_OK(madvise(memory.page(page), kPage, MADV_DONTNEED));
      Heat([&] { wrong += RunAt(at) != pid; });
      ASSERT_EQ(mmap(memory.page(page), kPage, kExecutable, MAP_PRIVATE | MAP_FIXED, fd.get(),
                     static_cast<off_t>(page * kPage)),
                memory.page(page));
      Heat([&] { wrong += RunAt(at) != pid; });
      ASSERT_EQ(wrong, 0) << before << " bytes before the page's end, page " << page;
    }
  }
}
TEST(CallSitePages, AtTheEndOfItsMapping) {
  const long pid = TrueIdentity()[0];
  Mapping memory(2 * kPage);
  const Bytes site = Call(SYS_getpid) + kRet;
  memcpy(memory.page(1) - site.size(), site.data(), site.size());
  ASSERT_OK(mprotect(memory.page(0), kPage, kExecutable));
  ASSERT_OK(mprotect(memory.page(1), kPage, PROT_NONE));
  Heat([&] { EXPECT_EQ(RunAt(memory.page(1) - site.size()), pid); });
}
TEST(CallSitePages, ChildWritesItsOwn) {
  Code code(Padded(Call(SYS_getpid)));
  Heat([&] { (void)code(); });
  EXPECT_TRUE(PassesInChild([&] {
    code.Rewrite(Padded(Call(SYS_getppid)));
    const long parent = TrueIdentity()[2];
    Heat([&] { EXPECT_EQ(code(), parent); });
  }));
  const long pid = TrueIdentity()[0];
  Heat([&] { EXPECT_EQ(code(), pid); });
}

// Unwinders and debuggers know a signal frame by these bytes.
TEST(CallSitePages, ReturnFromSignalsStaysTheSame) {
  struct KernelAction {
    void (*handler)(int);
    unsigned long flags;
    const uint8_t* restorer;
    unsigned long mask;
  } action = {};
  ASSERT_NE(signal(SIGUSR1, [](int) {}), SIG_ERR);
  ASSERT_OK(syscall(SYS_rt_sigaction, SIGUSR1, nullptr, &action, 8));
  ASSERT_NE(action.flags & 0x04000000, 0u);  // SA_RESTORER
  const Bytes before(action.restorer, action.restorer + 9);
  for (int i = 0; i < 3 * kHot; ++i) ASSERT_OK(raise(SIGUSR1));
  EXPECT_EQ(Bytes(action.restorer, action.restorer + 9), before);
}

}  // namespace
}  // namespace moat::guest
