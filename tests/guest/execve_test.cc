// execve(2), execveat(2), fexecve(3).
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

using Strings = std::vector<std::string>;

int Exec(const std::string& path, const Strings& args, const Strings& env = {}) {
  std::vector<char*> argv, envp;
  for (const std::string& s : args) argv.push_back(const_cast<char*>(s.c_str()));
  for (const std::string& s : env) envp.push_back(const_cast<char*>(s.c_str()));
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  return execve(path.c_str(), argv.data(), envp.data());
}

class Execve : public testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(chmod(dir_.path().c_str(), 0755)); }
  // Runs `body` (which executes something) and returns what that wrote to stdout.
  std::string OutputOf(const std::function<void()>& body) {
    int p[2];
    EXPECT_OK(pipe(p));
    const ScopedFd r(p[0]);
    ScopedFd w(p[1]);
    const pid_t child = Spawn([&] {
      dup2(w.get(), 1);
      close(w.get());
      body();
      _exit(99);
    });
    w.Reset();
    std::string output = ReadAll(r.get());
    status_ = WaitStatus(child);
    return output;
  }
  // The errno that executing `path` fails with.
  static int ExecError(const std::string& path) {
    const int status = StatusOf([&] {
      Exec(path, {path});
      _exit(errno);
    });
    return WEXITSTATUS(status);
  }
  static std::string Role(const char* name) { return std::string("--role=") + name; }
  TempDir dir_;
  int status_ = 0;
};

MOAT_ROLE(show_args) {
  for (int i = 0; i < argc; ++i) printf("[%s]", argv[i]);
  return 0;
}
MOAT_ROLE(show_env) {
  for (char** e = environ; *e != nullptr; ++e) printf("[%s]", *e);
  return 0;
}
MOAT_ROLE(ok) { return 0; }
// An empty argv has no room for a role, so the variable asks before main() instead.
__attribute__((constructor)) void ShowArgc(int argc, char** argv, char** env) {
  if (env[0] == nullptr || strcmp(env[0], "MOAT_SHOW_ARGC=1") != 0) return;
  printf("%d:%zu", argc, strlen(argv[0]));
  fflush(stdout);
  _exit(0);
}

TEST_F(Execve, PassesArguments) {
  const std::string self = SelfPath();
  EXPECT_EQ(OutputOf([&] {
              Exec(self, {"zero", Role("show_args"), "one", "", "t w o"});
            }),
            "[--role=show_args][one][][t w o]");
  EXPECT_EQ(status_, 0);
}
TEST_F(Execve, PassesEnvironment) {
  const std::string self = SelfPath();
  EXPECT_EQ(OutputOf([&] { Exec(self, {self, Role("show_env")}, {"A=1", "B=two words"}); }), "[A=1][B=two words]");
  EXPECT_EQ(OutputOf([&] { Exec(self, {self, Role("show_env")}); }), "");
}
TEST_F(Execve, KeepsPidParentAndWorkingDirectory) {
  const pid_t child = Spawn([&] {
    ASSERT_OK(chdir(dir_.path().c_str()));
    ExecRole("check_identity", {std::to_string(getpid()), std::to_string(getppid()), dir_.path()});
  });
  EXPECT_EQ(WaitStatus(child), 0);
}
MOAT_ROLE(check_identity) {
  char cwd[PATH_MAX];
  if (getpid() != atoi(argv[1]) || getppid() != atoi(argv[2])) return 1;
  return getcwd(cwd, sizeof cwd) != nullptr && strcmp(cwd, argv[3]) == 0 ? 0 : 2;
}
TEST_F(Execve, HandlersResetIgnoredStay) {
  EXPECT_EQ(StatusOf([] {
              signal(SIGUSR1, [](int) {});
              signal(SIGUSR2, SIG_IGN);
              const sigset_t set = SignalSet({SIGHUP});
              sigprocmask(SIG_BLOCK, &set, nullptr);
              ExecRole("check_signals");
            }),
            0);
}
MOAT_ROLE(check_signals) {
  struct sigaction action;
  sigaction(SIGUSR1, nullptr, &action);
  if (action.sa_handler != SIG_DFL) return 1;
  sigaction(SIGUSR2, nullptr, &action);
  if (action.sa_handler != SIG_IGN) return 2;
  sigset_t mask;
  sigprocmask(SIG_BLOCK, nullptr, &mask);
  return sigismember(&mask, SIGHUP) ? 0 : 3;
}
TEST_F(Execve, PendingSignalSurvives) {
  EXPECT_EQ(StatusOf([] {
              const sigset_t set = SignalSet({SIGUSR1});
              sigprocmask(SIG_BLOCK, &set, nullptr);
              raise(SIGUSR1);
              ExecRole("check_pending");
            }),
            0);
}
MOAT_ROLE(check_pending) {
  sigset_t pending;
  sigpending(&pending);
  return sigismember(&pending, SIGUSR1) ? 0 : 1;
}
TEST_F(Execve, AlarmSurvivesAltStackDoesNot) {
  EXPECT_EQ(StatusOf([] {
              alarm(100);
              static char stack[65536];
              const stack_t ss = {stack, 0, sizeof stack};
              sigaltstack(&ss, nullptr);
              ExecRole("check_alarm");
            }),
            0);
}
MOAT_ROLE(check_alarm) {
  stack_t ss;
  if (alarm(0) < 90) return 1;
  return sigaltstack(nullptr, &ss) == 0 && (ss.ss_flags & SS_DISABLE) ? 0 : 2;
}
TEST_F(Execve, CommIsTheFileName) {
  const std::string link = dir_.Join("a-name-longer-than-fifteen");
  ASSERT_OK(symlink(SelfPath().c_str(), link.c_str()));
  EXPECT_EQ(OutputOf([&] { Exec(link, {"argv0", Role("show_comm")}); }), "a-name-longer-t");
}
MOAT_ROLE(show_comm) {
  char name[16];
  prctl(PR_GET_NAME, name);
  printf("%s", name);
  return 0;
}
TEST_F(Execve, CmdlineAndEnvironInProc) {
  const std::string self = SelfPath();
  EXPECT_EQ(OutputOf([&] {
              Exec(self, {"x", Role("show_proc"), "y"}, {"K=V"});
            }),
            std::string("x\0--role=show_proc\0y\0K=V\0", 25));
}
MOAT_ROLE(show_proc) {
  const std::string all = ReadFile("/proc/self/cmdline") + ReadFile("/proc/self/environ");
  fwrite(all.data(), 1, all.size(), stdout);
  return 0;
}
TEST_F(Execve, AuxiliaryVector) {
  EXPECT_EQ(StatusOf([] { ExecRole("check_auxv"); }), 0);
}
MOAT_ROLE(check_auxv) {
  if (getauxval(AT_PAGESZ) != kPage) return 1;
  if (getauxval(AT_PHDR) == 0 || getauxval(AT_PHNUM) == 0 || getauxval(AT_PHENT) != sizeof(Elf64_Phdr)) return 2;
  if (getauxval(AT_UID) != getuid() || getauxval(AT_EGID) != getegid() || getauxval(AT_SECURE) != 0) return 3;
  const auto* random = reinterpret_cast<const unsigned char*>(getauxval(AT_RANDOM));
  if (random == nullptr || std::all_of(random, random + 16, [](unsigned char c) { return c == 0; })) return 4;
  const auto* name = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  if (name == nullptr || strcmp(name, SelfPath().c_str()) != 0) return 5;
  if (getauxval(AT_CLKTCK) != 100 || getauxval(AT_ENTRY) == 0) return 6;
  return strcmp(reinterpret_cast<const char*>(getauxval(AT_PLATFORM)), "x86_64") == 0 ? 0 : 7;
}

TEST_F(Execve, Errors) {
  EXPECT_EQ(ExecError(dir_.Join("none")), ENOENT);
  EXPECT_EQ(ExecError(dir_.path()), EACCES);
  EXPECT_EQ(ExecError(dir_.File("noexec", "#!/bin/sh\n", 0644)), EACCES);
  EXPECT_EQ(ExecError(dir_.File("text", "just text\n", 0755)), ENOEXEC);
  EXPECT_EQ(ExecError(dir_.File("empty", "", 0755)), ENOEXEC);
  EXPECT_EQ(ExecError(dir_.Join("text/x")), ENOTDIR);
}
TEST_F(Execve, BadPointers) {
  const char* argv[] = {"x", nullptr};
  EXPECT_FAIL(syscall(SYS_execve, BadPointer(), argv, argv), EFAULT);
  EXPECT_FAIL(syscall(SYS_execve, "/proc/self/exe", BadPointer(), argv + 1), EFAULT);
  const char* bad[] = {BadPointer(), nullptr};
  EXPECT_FAIL(syscall(SYS_execve, "/proc/self/exe", bad, argv + 1), EFAULT);
}
TEST_F(Execve, TruncatedElf) {
  const std::string self = ReadFile(SelfPath());
  EXPECT_EQ(ExecError(dir_.File("cut", self.substr(0, 40), 0755)), ENOEXEC);
}
TEST_F(Execve, WrongMachineOrClass) {
  std::string elf = ReadFile(SelfPath()).substr(0, 8192);
  auto* header = reinterpret_cast<Elf64_Ehdr*>(elf.data());
  header->e_machine = EM_AARCH64;
  EXPECT_EQ(ExecError(dir_.File("arm", elf, 0755)), ENOEXEC);
  header->e_machine = EM_X86_64;
  header->e_type = ET_REL;
  EXPECT_EQ(ExecError(dir_.File("rel", elf, 0755)), ENOEXEC);
}
TEST_F(Execve, NoProgramHeaders) {
  std::string elf = ReadFile(SelfPath()).substr(0, 8192);
  reinterpret_cast<Elf64_Ehdr*>(elf.data())->e_phnum = 0;
  EXPECT_EQ(ExecError(dir_.File("nophdr", elf, 0755)), ENOEXEC);
}
TEST_F(Execve, MissingInterpreterOfElf) {
  // A dynamic program whose PT_INTERP names nothing.
  struct {
    Elf64_Ehdr header;
    Elf64_Phdr interp;
    Elf64_Phdr load;
    char name[16];
  } elf = {};
  memcpy(elf.header.e_ident, ELFMAG, SELFMAG);
  elf.header.e_ident[EI_CLASS] = ELFCLASS64;
  elf.header.e_ident[EI_DATA] = ELFDATA2LSB;
  elf.header.e_ident[EI_VERSION] = EV_CURRENT;
  elf.header.e_type = ET_EXEC;
  elf.header.e_machine = EM_X86_64;
  elf.header.e_version = EV_CURRENT;
  elf.header.e_phoff = offsetof(decltype(elf), interp);
  elf.header.e_ehsize = sizeof(Elf64_Ehdr);
  elf.header.e_phentsize = sizeof(Elf64_Phdr);
  elf.header.e_phnum = 2;
  elf.header.e_entry = 0x400000;
  strcpy(elf.name, "/no/interpreter");
  elf.interp.p_type = PT_INTERP;
  elf.interp.p_offset = offsetof(decltype(elf), name);
  elf.interp.p_filesz = elf.interp.p_memsz = sizeof elf.name;
  elf.load.p_type = PT_LOAD;
  elf.load.p_vaddr = 0x400000;
  elf.load.p_filesz = elf.load.p_memsz = sizeof elf;
  elf.load.p_flags = PF_R | PF_X;
  elf.load.p_align = kPage;
  const std::string_view bytes(reinterpret_cast<const char*>(&elf), sizeof elf);
  EXPECT_EQ(ExecError(dir_.File("dynamic", bytes, 0755)), ENOENT);
}
TEST_F(Execve, ArgumentTooLong) { EXPECT_FAIL(Exec("/proc/self/exe", {"x", std::string(131072, 'a')}), E2BIG); }
TEST_F(Execve, ArgumentsTooMany) {
  const Strings many(20'000, std::string(500, 'a'));
  EXPECT_FAIL(Exec("/proc/self/exe", many), E2BIG);
}
TEST_F(Execve, LongestArgumentPasses) {
  const std::string self = SelfPath();
  const std::string out = OutputOf([&] { Exec(self, {"x", Role("show_length"), std::string(131071, 'a')}); });
  EXPECT_EQ(out, "131071");
}
MOAT_ROLE(show_length) {
  printf("%zu", strlen(argv[1]));
  return 0;
}
TEST_F(Execve, ManyArgumentsPass) {
  const std::string self = SelfPath();
  Strings args = {"x", Role("show_count")};
  args.resize(2'002, "argument");
  EXPECT_EQ(OutputOf([&] { Exec(self, args); }), "2001");
}
MOAT_ROLE(show_count) {
  printf("%d", argc);
  return 0;
}
TEST_F(Execve, EmptyArgvBecomesOneEmptyString) {  // since Linux 5.18
  const std::string out = OutputOf([&] {
    char* argv[] = {nullptr};
    char* envp[] = {const_cast<char*>("MOAT_SHOW_ARGC=1"), nullptr};
    execve(SelfPath().c_str(), argv, envp);
  });
  EXPECT_EQ(out, "1:0");
}

TEST_F(Execve, ScriptRunsItsInterpreter) {
  const std::string script = dir_.File("script", "#!" + SelfPath() + " --role=show_args\n", 0755);
  EXPECT_EQ(OutputOf([&] { Exec(script, {"ignored", "one", "two"}); }), "[--role=show_args][" + script + "][one][two]");
}
TEST_F(Execve, ScriptArgumentIsOneString) {
  const std::string script = dir_.File("script", "#!  " + SelfPath() + "  --role=show_args a b  \n", 0755);
  EXPECT_EQ(WEXITSTATUS(StatusOf([&] { Exec(script, {script}); })), 125);  // "show_args a b" is no role
}
TEST_F(Execve, ScriptWithMissingInterpreter) {
  EXPECT_EQ(ExecError(dir_.File("script", "#!/no/such/interpreter\n", 0755)), ENOENT);
}
TEST_F(Execve, ScriptOfScript) {
  const std::string inner = dir_.File("inner", "#!" + SelfPath() + " --role=show_args\n", 0755);
  const std::string outer = dir_.File("outer", "#!" + inner + "\n", 0755);
  EXPECT_EQ(OutputOf([&] { Exec(outer, {"x", "arg"}); }), "[--role=show_args][" + inner + "][" + outer + "][arg]");
}
TEST_F(Execve, ScriptLoopEnds) {
  const std::string script = dir_.Join("loop");
  dir_.File("loop", "#!" + script + "\n", 0755);
  EXPECT_EQ(ExecError(script), ELOOP);
}
TEST_F(Execve, ScriptWithoutNewlineAtTheEnd) {
  const std::string script = dir_.File("script", "#!" + SelfPath() + " --role=ok", 0755);
  EXPECT_EQ(StatusOf([&] { Exec(script, {script}); }), 0);
}
TEST_F(Execve, ScriptMarkOnlyIsNoexec) { EXPECT_EQ(ExecError(dir_.File("script", "#!  \n", 0755)), ENOEXEC); }

TEST_F(Execve, OpenForWritingIsBusy) {
  const std::string copy = dir_.File("copy", ReadFile(SelfPath()), 0755);
  ScopedFd w(open(copy.c_str(), O_WRONLY));
  EXPECT_EQ(ExecError(copy), ETXTBSY);
  w.Reset();
  EXPECT_EQ(StatusOf([&] { Exec(copy, {copy, Role("ok")}); }), 0);
}
TEST_F(Execve, RunningProgramCannotBeWritten) {
  const std::string copy = dir_.File("copy", ReadFile(SelfPath()), 0755);
  const pid_t child = Spawn([&] { Exec(copy, {copy, Role("pause_forever")}); });
  ASSERT_TRUE(Eventually([&] {
    return ReadFile("/proc/" + std::to_string(child) + "/cmdline").find("pause_forever") != std::string::npos;
  }));
  EXPECT_FAIL(open(copy.c_str(), O_WRONLY), ETXTBSY);
  EXPECT_FAIL(truncate(copy.c_str(), 0), ETXTBSY);
  kill(child, SIGKILL);
  WaitStatus(child);
}
MOAT_ROLE(pause_forever) {
  for (;;) pause();
}
TEST_F(Execve, SetuidProgram) {
  const std::string copy = dir_.File("copy", ReadFile(SelfPath()), 0755);
  ASSERT_OK(chown(copy.c_str(), 1234, 5678));
  ASSERT_OK(chmod(copy.c_str(), 06755));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    const std::string out = OutputOf([&] { Exec(copy, {copy, Role("show_ids")}); });
    EXPECT_EQ(out, "1000 1234 1234 1000 5678 5678 1");
  }));
}
TEST_F(Execve, NoNewPrivsStopsSetuid) {
  const std::string copy = dir_.File("copy", ReadFile(SelfPath()), 0755);
  ASSERT_OK(chown(copy.c_str(), 1234, 5678));
  ASSERT_OK(chmod(copy.c_str(), 06755));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    ASSERT_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    EXPECT_EQ(OutputOf([&] { Exec(copy, {copy, Role("show_ids")}); }), "1000 1000 1000 1000 1000 1000 0");
  }));
}
MOAT_ROLE(show_ids) {
  uid_t r, e, s;
  gid_t rg, eg, sg;
  getresuid(&r, &e, &s);
  getresgid(&rg, &eg, &sg);
  printf("%u %u %u %u %u %u %lu", r, e, s, rg, eg, sg, getauxval(AT_SECURE));
  return 0;
}
TEST_F(Execve, ExecveatByDescriptor) {
  const ScopedFd at = dir_.Open();
  dir_.File("copy", ReadFile(SelfPath()), 0755);
  char* argv[] = {const_cast<char*>("x"), const_cast<char*>("--role=ok"), nullptr};
  char* envp[] = {nullptr};
  EXPECT_EQ(StatusOf([&] { execveat(at.get(), "copy", argv, envp, 0); }), 0);
  const ScopedFd file(open(dir_.Join("copy").c_str(), O_PATH));
  EXPECT_EQ(StatusOf([&] { execveat(file.get(), "", argv, envp, AT_EMPTY_PATH); }), 0);
  EXPECT_FAIL(execveat(file.get(), "", argv, envp, 0), ENOENT);
  ASSERT_OK(symlink("copy", dir_.Join("link").c_str()));
  EXPECT_FAIL(execveat(at.get(), "link", argv, envp, AT_SYMLINK_NOFOLLOW), ELOOP);
  EXPECT_FAIL(execveat(at.get(), "copy", argv, envp, 0x4), EINVAL);
}
TEST_F(Execve, CloexecScriptByDescriptorFails) {
  const ScopedFd script(open(dir_.File("s", "#!" + SelfPath() + " --role=ok\n", 0755).c_str(), O_RDONLY | O_CLOEXEC));
  char* argv[] = {const_cast<char*>("x"), nullptr};
  char* envp[] = {nullptr};
  EXPECT_FAIL(execveat(script.get(), "", argv, envp, AT_EMPTY_PATH), ENOENT);
}
TEST_F(Execve, KillsTheOtherThreads) {
  EXPECT_EQ(StatusOf([] {
              for (int i = 0; i < 4; ++i) {
                std::thread([] {
                  for (;;) pause();
                }).detach();
              }
              usleep(5'000);
              ExecRole("one_thread");
            }),
            0);
}
MOAT_ROLE(one_thread) { return List("/proc/self/task").size() == 1 ? 0 : 1; }
TEST_F(Execve, NewImageHasFreshMemory) {
  EXPECT_EQ(StatusOf([] {
              void* p = mmap(reinterpret_cast<void*>(0x10'0000'0000), kPage, PROT_READ,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
              EXPECT_NE(p, MAP_FAILED);
              ExecRole("no_old_mapping");
            }),
            0);
}
MOAT_ROLE(no_old_mapping) { return ReadFile("/proc/self/maps").find("1000000000-") == std::string::npos ? 0 : 1; }

}  // namespace
}  // namespace moat::guest
