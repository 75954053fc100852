// core(5): the file that a process leaves behind when a signal of that kind ends it.
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/procfs.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

// A parsed core file.
class Core {
 public:
  explicit Core(std::string bytes) : bytes_(std::move(bytes)) {
    Elf64_Ehdr header;
    if (!Get(0, header) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_type != ET_CORE) return;
    valid_ = true;
    for (int i = 0; i < header.e_phnum; ++i) {
      Elf64_Phdr p;
      if (!Get(header.e_phoff + static_cast<size_t>(i) * sizeof p, p)) return;
      if (p.p_type == PT_LOAD) segments_.push_back(p);
      if (p.p_type == PT_NOTE) ParseNotes(p);
    }
  }
  bool valid() const { return valid_; }
  const std::vector<std::string>& notes(uint32_t type) { return notes_[type]; }
  template <typename T>
  T Note(uint32_t type, size_t index = 0) {
    T value = {};
    if (index < notes_[type].size()) memcpy(&value, notes_[type][index].data(), sizeof value);
    return value;
  }
  // What the core has of [address, address + size); empty when it has not all of it.
  std::string Memory(const void* address, size_t size) const {
    const auto at = reinterpret_cast<uintptr_t>(address);
    for (const Elf64_Phdr& p : segments_) {
      if (at < p.p_vaddr || at + size > p.p_vaddr + p.p_filesz) continue;
      return bytes_.size() < p.p_offset + p.p_filesz ? "" : bytes_.substr(p.p_offset + (at - p.p_vaddr), size);
    }
    return "";
  }

 private:
  template <typename T>
  bool Get(size_t at, T& out) const {
    if (at + sizeof out > bytes_.size()) return false;
    memcpy(&out, bytes_.data() + at, sizeof out);
    return true;
  }
  void ParseNotes(const Elf64_Phdr& p) {
    size_t at = p.p_offset;
    Elf64_Nhdr n;
    auto aligned = [](size_t v) { return (v + 3) & ~size_t{3}; };
    while (at < p.p_offset + p.p_filesz && Get(at, n)) {
      const size_t data = at + sizeof n + aligned(n.n_namesz);
      if (data + n.n_descsz > bytes_.size()) return;
      notes_[n.n_type].push_back(bytes_.substr(data, n.n_descsz));
      at = data + aligned(n.n_descsz);
    }
  }
  std::string bytes_;
  bool valid_ = false;
  std::vector<Elf64_Phdr> segments_;
  std::map<uint32_t, std::vector<std::string>> notes_;
};

class CoreDump : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ReadFile("/proc/sys/kernel/core_pattern");
    if (pattern != "core\n" || ReadFile("/proc/sys/kernel/core_uses_pid") != "0\n")
      GTEST_SKIP() << "core dumps go elsewhere: " << pattern;
    rlimit now;
    ASSERT_OK(getrlimit(RLIMIT_CORE, &now));
    if (now.rlim_max != RLIM_INFINITY) GTEST_SKIP() << "the hard limit is in the way";
  }
  // The wait status of a child that runs `body` in the directory, with core dumps of up to `limit` bytes.
  int Status(const std::function<void()>& body, rlim_t limit = RLIM_INFINITY) {
    return StatusOf([&] {
      ASSERT_OK(chdir(dir_.path().c_str()));
      const rlimit core = {limit, RLIM_INFINITY};
      ASSERT_OK(setrlimit(RLIMIT_CORE, &core));
      body();
    });
  }
  std::string Path() const { return dir_.Join("core"); }
  TempDir dir_;
};

TEST_F(CoreDump, NamesTheSignalAndHoldsMemory) {
  // Mapped before the child is made, so that both know the address; written by the child only.
  const Mapping own(2 * kPage), hidden(kPage), shared(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  pid_t child = 0;
  const int status = Status([&] {
    strcpy(own.page(1), "own memory");
    strcpy(hidden.data(), "hidden memory");
    strcpy(shared.data(), "shared memory");
    ASSERT_OK(madvise(hidden.data(), kPage, MADV_DONTDUMP));
    const pid_t self = getpid();
    memcpy(shared.data() + 100, &self, sizeof self);
    abort();
  });
  memcpy(&child, shared.data() + 100, sizeof child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGABRT);
  EXPECT_TRUE(WCOREDUMP(status));
  struct stat st;
  ASSERT_OK(stat(Path().c_str(), &st));
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  Core core(ReadFile(Path()));
  ASSERT_TRUE(core.valid());
  EXPECT_EQ(core.Memory(own.page(1), 11), std::string("own memory\0", 11));
  EXPECT_EQ(core.Memory(shared.data(), 14), std::string("shared memory\0", 14));
  EXPECT_EQ(core.Memory(hidden.data(), 14), "");
  ASSERT_EQ(core.notes(NT_PRSTATUS).size(), 1u);
  const auto thread = core.Note<elf_prstatus>(NT_PRSTATUS);
  EXPECT_EQ(thread.pr_pid, child);
  EXPECT_EQ(thread.pr_cursig, SIGABRT);
  EXPECT_EQ(thread.pr_ppid, getpid());
  const auto process = core.Note<elf_prpsinfo>(NT_PRPSINFO);
  EXPECT_EQ(process.pr_pid, child);
  EXPECT_NE(std::string(process.pr_psargs).find("guest_core_dump"), std::string::npos);
  EXPECT_EQ(core.Note<siginfo_t>(0x53494749).si_signo, SIGABRT);  // NT_SIGINFO
  EXPECT_EQ(core.notes(NT_AUXV).size(), 1u);
  EXPECT_EQ(core.notes(NT_FPREGSET).size(), 1u);
  ASSERT_EQ(core.notes(0x46494c45).size(), 1u);  // NT_FILE
  EXPECT_NE(core.notes(0x46494c45)[0].find("guest_core_dump"), std::string::npos);
}
TEST_F(CoreDump, RegistersAreThoseOfTheFault) {
  const int status = Status([] {
    asm volatile("mov $0x1234567, %%rbx\n\tmovb $1, 8" : : : "rbx", "memory");  // nothing is mapped at 8
  });
  ASSERT_EQ(WTERMSIG(status), SIGSEGV);
  EXPECT_TRUE(WCOREDUMP(status));
  Core core(ReadFile(Path()));
  const auto thread = core.Note<elf_prstatus>(NT_PRSTATUS);
  user_regs_struct regs;
  memcpy(&regs, &thread.pr_reg, sizeof regs);
  EXPECT_EQ(regs.rbx, 0x1234567u);
  const auto info = core.Note<siginfo_t>(0x53494749);
  EXPECT_EQ(info.si_addr, reinterpret_cast<void*>(8));
  EXPECT_EQ(info.si_code, SEGV_MAPERR);
  EXPECT_EQ(core.Memory(reinterpret_cast<const void*>(regs.rsp), 8).size(), 8u) << "the stack";
}
TEST_F(CoreDump, AllThreads) {
  const int status = Status([] {
    std::atomic<int> started{0};
    for (int i = 0; i < 3; ++i) {
      std::thread([&] {
        ++started;
        for (;;) pause();
      }).detach();
    }
    while (started != 3) usleep(100);
    raise(SIGQUIT);
    for (;;) pause();
  });
  EXPECT_EQ(WTERMSIG(status), SIGQUIT);
  EXPECT_TRUE(WCOREDUMP(status));
  Core core(ReadFile(Path()));
  EXPECT_EQ(core.notes(NT_PRSTATUS).size(), 4u);
  EXPECT_EQ(core.notes(NT_FPREGSET).size(), 4u);
}
TEST_F(CoreDump, WaitidSaysDumped) {
  const pid_t child = Spawn([&] {
    ASSERT_OK(chdir(dir_.path().c_str()));
    const rlimit core = {RLIM_INFINITY, RLIM_INFINITY};
    ASSERT_OK(setrlimit(RLIMIT_CORE, &core));
    raise(SIGTRAP);
  });
  siginfo_t info = {};
  ASSERT_OK(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED));
  EXPECT_EQ(info.si_code, CLD_DUMPED);
  EXPECT_EQ(info.si_status, SIGTRAP);
}
TEST_F(CoreDump, SigchldSaysDumped) {
  const ScopedBlock block({SIGCHLD});
  Status([] { raise(SIGABRT); });
  const sigset_t set = SignalSet({SIGCHLD});
  siginfo_t info = {};
  ASSERT_EQ(sigwaitinfo(&set, &info), SIGCHLD);
  EXPECT_EQ(info.si_code, CLD_DUMPED);
}
TEST_F(CoreDump, NotOverTheLimit) {
  const int status = Status([] { abort(); }, 0);
  EXPECT_EQ(WTERMSIG(status), SIGABRT);
  EXPECT_FALSE(WCOREDUMP(status));
  EXPECT_FALSE(Exists(Path()));
}
TEST_F(CoreDump, CutShortAtTheLimit) {
  const Mapping large(1 << 20);
  memset(large.data(), 1, large.size());
  constexpr off_t kLimit = 64 << 10;
  EXPECT_TRUE(WCOREDUMP(Status([] { abort(); }, kLimit)));
  struct stat st;
  ASSERT_OK(stat(Path().c_str(), &st));
  EXPECT_GT(st.st_size, 0);
  EXPECT_LE(st.st_blocks * 512, kLimit);
}
TEST_F(CoreDump, NoRoomForItsHeadersEither) {
  EXPECT_TRUE(WCOREDUMP(Status([] { abort(); }, kPage)));
  EXPECT_TRUE(Exists(Path()));
}
TEST_F(CoreDump, OtherSignalsLeaveNone) {
  EXPECT_FALSE(WCOREDUMP(Status([] { raise(SIGTERM); })));
  EXPECT_FALSE(WCOREDUMP(Status([] { raise(SIGKILL); })));
  EXPECT_FALSE(Exists(Path()));
}
TEST_F(CoreDump, NotOfWhatMayNotBeDumped) {
  EXPECT_FALSE(WCOREDUMP(Status([] {
    ASSERT_OK(prctl(PR_SET_DUMPABLE, 0));
    abort();
  })));
  EXPECT_FALSE(Exists(Path()));
}
TEST_F(CoreDump, OnlyIntoAPlainFileOfItsOwn) {
  const std::string victim = dir_.File("victim", "precious");
  ASSERT_OK(symlink("victim", Path().c_str()));
  Status([] { abort(); });  // Linux wrote nothing; newer versions make a new file
  EXPECT_EQ(ReadFile(victim), "precious");
  ASSERT_OK(unlink(Path().c_str()));
  ASSERT_OK(link(victim.c_str(), Path().c_str()));
  Status([] { abort(); });
  EXPECT_EQ(ReadFile(victim), "precious");
  ASSERT_OK(unlink(Path().c_str()));
  ASSERT_OK(mkdir(Path().c_str(), 0755));
  EXPECT_FALSE(WCOREDUMP(Status([] { abort(); })));
  ASSERT_OK(rmdir(Path().c_str()));
  dir_.File("core", std::string(1 << 20, 'o'));
  EXPECT_TRUE(WCOREDUMP(Status([] { abort(); })));
  EXPECT_TRUE(Core(ReadFile(Path())).valid()) << "an old one is replaced";
}
TEST_F(CoreDump, LargeReservationsAreHoles) {
  const Mapping sparse(1 << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  EXPECT_TRUE(WCOREDUMP(Status([&] {
    sparse.data()[1 << 29] = 'x';
    abort();
  })));
  struct stat st;
  ASSERT_OK(stat(Path().c_str(), &st));
  EXPECT_GT(st.st_size, 1 << 30);
  EXPECT_LT(st.st_blocks * 512, 64 << 20);
}

}  // namespace
}  // namespace moat::guest
