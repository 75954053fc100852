// What programs read from /proc and /sys, the devices of /dev, uname(2), sysinfo(2), getrandom(2).
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>
#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

std::string ReadLink(const std::string& path) {
  char b[4096];
  const ssize_t n = readlink(path.c_str(), b, sizeof b);
  EXPECT_OK(n) << path;
  return std::string(b, n > 0 ? n : 0);
}
std::vector<std::string> Words(const std::string& text) {
  std::vector<std::string> words;
  size_t start = 0;
  while ((start = text.find_first_not_of(" \t\n", start)) != std::string::npos) {
    const size_t end = std::min(text.find_first_of(" \t\n", start), text.size());
    words.push_back(text.substr(start, end - start));
    start = end;
  }
  return words;
}
bool Has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

TEST(Proc, SelfAndThreadSelf) {
  EXPECT_EQ(ReadLink("/proc/self"), std::to_string(getpid()));
  EXPECT_EQ(ReadLink("/proc/thread-self"), std::to_string(getpid()) + "/task/" + std::to_string(gettid()));
  std::thread([] {
    EXPECT_EQ(ReadLink("/proc/self"), std::to_string(getpid()));
    EXPECT_EQ(ReadLink("/proc/thread-self"), std::to_string(getpid()) + "/task/" + std::to_string(gettid()));
  }).join();
}
TEST(Proc, ListsProcesses) {
  const PausedChild child;
  const auto names = List("/proc");
  EXPECT_NE(std::find(names.begin(), names.end(), std::to_string(child.pid())), names.end());
  EXPECT_NE(std::find(names.begin(), names.end(), std::to_string(getpid())), names.end());
}
TEST(Proc, DeadProcessIsGone) {
  const pid_t child = Spawn([] {});
  const std::string path = "/proc/" + std::to_string(child);
  const ScopedFd status(open((path + "/status").c_str(), O_RDONLY));
  WaitStatus(child);
  EXPECT_FALSE(Exists(path));
  char b;
  EXPECT_FAIL(read(status.get(), &b, 1), ESRCH);
}
TEST(Proc, StatusFields) {
  EXPECT_EQ(ProcField("/proc/self/status", "Pid"), std::to_string(getpid()));
  EXPECT_EQ(ProcField("/proc/self/status", "PPid"), std::to_string(getppid()));
  EXPECT_EQ(ProcField("/proc/self/status", "Tgid"), std::to_string(getpid()));
  EXPECT_EQ(ProcField("/proc/self/status", "Threads"), "1");
  EXPECT_EQ(ProcField("/proc/self/status", "State"), "R (running)");
  for (const char* field : {"Umask", "VmSize", "VmRSS", "VmPeak", "SigBlk", "SigIgn", "SigCgt", "ShdPnd", "CapInh",
                            "CapBnd", "Seccomp", "Cpus_allowed_list", "voluntary_ctxt_switches", "FDSize"}) {
    EXPECT_NE(ProcField("/proc/self/status", field), "") << field;
  }
}
TEST(Proc, StatusOfSignals) {
  EXPECT_TRUE(PassesInChild([] {
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, [](int) {});
    EXPECT_TRUE(std::stoull(ProcField("/proc/self/status", "SigIgn"), nullptr, 16) & (1ull << (SIGUSR1 - 1)));
    EXPECT_TRUE(std::stoull(ProcField("/proc/self/status", "SigCgt"), nullptr, 16) & (1ull << (SIGUSR2 - 1)));
  }));
}
TEST(Proc, StatLine) {
  const std::string stat = ReadFile("/proc/self/stat");
  const auto fields = Words(stat.substr(stat.rfind(')') + 1));
  ASSERT_EQ(fields.size(), 50u);
  EXPECT_EQ(fields[0], "R");
  EXPECT_EQ(fields[1], std::to_string(getppid()));
  EXPECT_EQ(fields[2], std::to_string(getpgrp()));
  EXPECT_EQ(fields[3], std::to_string(getsid(0)));
  EXPECT_EQ(Words(stat)[0], std::to_string(getpid()));
  EXPECT_GT(std::stoll(fields[20]), 0);  // vsize
}
TEST(Proc, StatmAndCmdline) {
  EXPECT_EQ(Words(ReadFile("/proc/self/statm")).size(), 7u);
  EXPECT_TRUE(Has(ReadFile("/proc/self/cmdline"), "guest_procfs"));
}
TEST(Proc, ExeCwdRootLinks) {
  struct stat a, b;
  ASSERT_OK(stat("/proc/self/root", &a));
  ASSERT_OK(stat("/", &b));
  EXPECT_EQ(a.st_ino, b.st_ino);
  const TempDir dir;
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(chdir(dir.path().c_str()));
    EXPECT_EQ(ReadLink("/proc/self/cwd"), dir.path());
  }));
  EXPECT_TRUE(Has(ReadLink("/proc/self/exe"), "guest_procfs"));
}
TEST(Proc, MapsShowMappings) {
  const Mapping m(3 * kPage, PROT_READ | PROT_WRITE);
  ASSERT_OK(mprotect(m.page(1), kPage, PROT_READ));
  char line[64];
  snprintf(line, sizeof line, "%lx-%lx r--p 00000000 00:00 0", reinterpret_cast<long>(m.page(1)),
           reinterpret_cast<long>(m.page(2)));
  const std::string maps = ReadFile("/proc/self/maps");
  EXPECT_TRUE(Has(maps, line)) << maps;
  EXPECT_TRUE(Has(maps, "[stack]"));
  EXPECT_TRUE(Has(maps, "guest_procfs"));
}
TEST(Proc, MapsOfFile) {
  const TempDir dir;
  const std::string path = dir.File("mapped", std::string(2 * kPage, 'x'));
  const ScopedFd fd(open(path.c_str(), O_RDONLY));
  const Mapping m(kPage, PROT_READ, MAP_SHARED, fd.get(), kPage);
  const std::string maps = ReadFile("/proc/self/maps");
  const size_t at = maps.find(path);
  ASSERT_NE(at, std::string::npos);
  EXPECT_TRUE(Has(maps.substr(maps.rfind('\n', at) + 1, at - maps.rfind('\n', at)), "r--s 00001000"));
}
TEST(Proc, SmapsHasSizes) {
  EXPECT_TRUE(Has(ReadFile("/proc/self/smaps"), "Size:"));
  EXPECT_TRUE(Has(ReadFile("/proc/self/smaps"), "Rss:"));
}
TEST(Proc, FdDirectory) {
  const ScopedFd fd(open("/dev/null", O_RDWR | O_APPEND));
  EXPECT_EQ(ReadLink("/proc/self/fd/" + std::to_string(fd.get())), "/dev/null");
  const std::string info = "/proc/self/fdinfo/" + std::to_string(fd.get());
  EXPECT_EQ(ProcField(info, "pos"), "0");
  EXPECT_EQ(std::stol(ProcField(info, "flags"), nullptr, 8) & (O_ACCMODE | O_APPEND), O_RDWR | O_APPEND);
  const auto names = List("/proc/self/fd");
  EXPECT_NE(std::find(names.begin(), names.end(), std::to_string(fd.get())), names.end());
  EXPECT_FALSE(Exists("/proc/self/fd/9999"));
}
TEST(Proc, MemReadsTheProcess) {
  const Mapping m(kPage);
  strcpy(m.data(), "through mem");
  const ScopedFd fd(open("/proc/self/mem", O_RDWR));
  char b[12];
  EXPECT_EQ(pread(fd.get(), b, 12, reinterpret_cast<off_t>(m.data())), 12);
  EXPECT_STREQ(b, "through mem");
  EXPECT_EQ(pwrite(fd.get(), "T", 1, reinterpret_cast<off_t>(m.data())), 1);
  EXPECT_EQ(m.data()[0], 'T');
  EXPECT_FAIL(pread(fd.get(), b, 1, 8), EIO);
}
TEST(Proc, TaskDirectory) {
  const std::string self = std::to_string(getpid());
  EXPECT_EQ(List("/proc/self/task"), std::vector<std::string>{self});
  EXPECT_EQ(ProcField("/proc/self/task/" + self + "/status", "Pid"), self);
}
TEST(Proc, Children) {
  const PausedChild child;
  const std::string path = "/proc/self/task/" + std::to_string(gettid()) + "/children";
  EXPECT_TRUE(Has(ReadFile(path), std::to_string(child.pid()) + " "));
}
TEST(Proc, OomScoreAdj) {
  EXPECT_TRUE(PassesInChild([] {
    const ScopedFd fd(open("/proc/self/oom_score_adj", O_RDWR));
    ASSERT_OK(fd.get());
    ASSERT_EQ(write(fd.get(), "500", 3), 3);
    EXPECT_EQ(ReadFile("/proc/self/oom_score_adj"), "500\n");
    EXPECT_FAIL(write(fd.get(), "5000", 4), EINVAL);
  }));
}
TEST(Proc, CommWritable) {
  EXPECT_TRUE(PassesInChild([] {
    const ScopedFd fd(open("/proc/self/comm", O_WRONLY));
    ASSERT_EQ(write(fd.get(), "renamed", 7), 7);
    EXPECT_EQ(ReadFile("/proc/self/comm"), "renamed\n");
  }));
}
TEST(Proc, OtherUsersAreProtected) {
  const PausedChild child;
  const std::string path = "/proc/" + std::to_string(child.pid());
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_FAIL(open((path + "/mem").c_str(), O_RDONLY), EACCES);
    EXPECT_FAIL(open((path + "/environ").c_str(), O_RDONLY), EACCES);
    const ScopedFd status(open((path + "/status").c_str(), O_RDONLY));
    EXPECT_OK(status.get());
  }));
}
class ProcFile : public testing::TestWithParam<std::pair<const char*, const char*>> {};
TEST_P(ProcFile, Contains) {
  EXPECT_TRUE(Has(ReadFile(GetParam().first), GetParam().second)) << ReadFile(GetParam().first);
}
INSTANTIATE_TEST_SUITE_P(
    , ProcFile,
    testing::Values(std::pair{"/proc/meminfo", "MemTotal:"}, std::pair{"/proc/meminfo", "MemAvailable:"},
                    std::pair{"/proc/cpuinfo", "processor\t: 0"}, std::pair{"/proc/cpuinfo", "model name"},
                    std::pair{"/proc/stat", "cpu0 "}, std::pair{"/proc/stat", "btime "},
                    std::pair{"/proc/version", "Linux version "}, std::pair{"/proc/filesystems", "nodev\ttmpfs"},
                    std::pair{"/proc/filesystems", "nodev\tproc"}, std::pair{"/proc/mounts", " /proc proc "},
                    std::pair{"/proc/self/mountinfo", " - proc "}, std::pair{"/proc/self/limits", "Max open files"},
                    std::pair{"/proc/self/io", "rchar:"}, std::pair{"/proc/sys/kernel/ostype", "Linux"},
                    std::pair{"/proc/sys/kernel/pid_max", ""}, std::pair{"/proc/sys/fs/pipe-max-size", "1048576"},
                    std::pair{"/proc/sys/vm/overcommit_memory", ""}, std::pair{"/proc/sys/kernel/cap_last_cap", "40"},
                    std::pair{"/proc/sys/kernel/random/boot_id", "-"}, std::pair{"/proc/self/cgroup", ":"}),
    [](const auto& info) {
      std::string name = std::to_string(info.index) + info.param.first;
      for (char& c : name) c = isalnum(c) ? c : '_';
      return name;
    });
uint64_t IoField(const std::string& path, const char* name) { return std::stoull("0" + ProcField(path, name)); }
TEST(Proc, IoCountsReadsAndWrites) {
  const TempDir dir;
  const std::string path = dir.File("f", std::string(1000, 'x'));
  const char* const io = "/proc/self/io";
  const uint64_t read_before = IoField(io, "rchar"), written_before = IoField(io, "wchar");
  const uint64_t calls_before = IoField(io, "syscw");
  const uint64_t own_before = IoField("/proc/thread-self/io", "wchar");
  const ScopedFd fd(open(path.c_str(), O_RDWR));
  char b[600];
  ASSERT_EQ(read(fd.get(), b, 600), 600);
  ASSERT_EQ(write(fd.get(), b, 300), 300);
  EXPECT_GE(IoField(io, "rchar"), read_before + 600);
  EXPECT_EQ(IoField(io, "wchar"), written_before + 300);
  EXPECT_EQ(IoField(io, "syscw"), calls_before + 1);
  // A thread that has ended still counts for its process, and for no other thread.
  std::thread([&] { EXPECT_EQ(write(fd.get(), b, 100), 100); }).join();
  EXPECT_EQ(IoField(io, "wchar"), written_before + 400);
  EXPECT_EQ(IoField("/proc/thread-self/io", "wchar"), own_before + 300);
}
TEST(Proc, TimersAreListed) {
  EXPECT_EQ(ReadFile("/proc/self/timers"), "");
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR2;
  event.sigev_value.sival_ptr = reinterpret_cast<void*>(0x1234);
  timer_t timer;
  ASSERT_OK(timer_create(CLOCK_MONOTONIC, &event, &timer));
  EXPECT_EQ(ReadFile("/proc/self/timers"),
            "ID: 0\nsignal: 12/0000000000001234\nnotify: signal/pid." + std::to_string(getpid()) + "\nClockID: 1\n");
  ASSERT_OK(timer_delete(timer));
  EXPECT_EQ(ReadFile("/proc/self/timers"), "");
}
TEST(Proc, MapFilesLeadToTheFiles) {
  const TempDir dir;
  const std::string path = dir.File("f", std::string(3 * kPage, 'x'));
  const ScopedFd fd(open(path.c_str(), O_RDWR));
  const Mapping m(2 * kPage, PROT_READ, MAP_PRIVATE, fd.get(), kPage);
  char name[64];
  const auto at = reinterpret_cast<uintptr_t>(m.data());
  snprintf(name, sizeof name, "%lx-%lx", at, at + m.size());
  const std::vector<std::string> names = List("/proc/self/map_files");
  EXPECT_EQ(std::count(names.begin(), names.end(), name), 1);
  const std::string link = std::string("/proc/self/map_files/") + name;
  char target[512];
  const ssize_t n = readlink(link.c_str(), target, sizeof target);
  ASSERT_OK(n);
  EXPECT_EQ(std::string(target, n), path);
  struct stat st;
  ASSERT_OK(lstat(link.c_str(), &st));
  EXPECT_EQ(st.st_mode & 0777, 0600u) << "what the descriptor allowed";
  ASSERT_OK(unlink(path.c_str()));
  EXPECT_EQ(ReadFile(link).size(), 3 * kPage) << "although its name is gone";
  EXPECT_FAIL(open("/proc/self/map_files/1000-2000", O_RDONLY), ENOENT);
  EXPECT_FAIL(open((link + "0").c_str(), O_RDONLY), ENOENT);
}
TEST(Proc, LocksAreListed) {
  const TempDir dir;
  const std::string path = dir.File("f", "0123456789");
  const ScopedFd fd(open(path.c_str(), O_RDWR));
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  char file[64];
  snprintf(file, sizeof file, "%02x:%02x:%lu", major(st.st_dev), minor(st.st_dev), st.st_ino);
  const std::string mine = std::to_string(getpid()) + " " + file;
  EXPECT_FALSE(Has(ReadFile("/proc/locks"), mine));
  struct flock range = {};
  range.l_type = F_WRLCK;
  range.l_start = 2;
  range.l_len = 3;
  ASSERT_OK(fcntl(fd.get(), F_SETLK, &range));
  EXPECT_TRUE(Has(ReadFile("/proc/locks"), "POSIX  ADVISORY  WRITE " + mine + " 2 4\n")) << ReadFile("/proc/locks");
  ASSERT_OK(flock(fd.get(), LOCK_SH));
  EXPECT_TRUE(Has(ReadFile("/proc/locks"), "FLOCK  ADVISORY  READ " + mine + " 0 EOF\n")) << ReadFile("/proc/locks");
  ASSERT_OK(flock(fd.get(), LOCK_UN));
  range.l_type = F_UNLCK;
  ASSERT_OK(fcntl(fd.get(), F_SETLK, &range));
  EXPECT_FALSE(Has(ReadFile("/proc/locks"), mine));
}
TEST(Proc, SystemVObjectsAreListed) {
  const int id = shmget(0x4d4f4155, 5000, IPC_CREAT | 0640);
  ASSERT_OK(id);
  const auto words = [&] {
    std::vector<std::string> found;
    std::istringstream lines(ReadFile("/proc/sysvipc/shm"));
    for (std::string line; std::getline(lines, line);) {
      std::vector<std::string> w = Words(line);
      if (w.size() > 4 && w[1] == std::to_string(id)) found = w;
    }
    return found;
  }();
  ASSERT_GT(words.size(), 10u);
  EXPECT_EQ(words[0], std::to_string(0x4d4f4155));
  EXPECT_EQ(words[2], "640");
  EXPECT_EQ(words[3], "5000");
  EXPECT_EQ(words[4], std::to_string(getpid()));
  EXPECT_OK(shmctl(id, IPC_RMID, nullptr));
  EXPECT_TRUE(Has(ReadFile("/proc/sysvipc/sem"), "semid perms"));
  EXPECT_TRUE(Has(ReadFile("/proc/sysvipc/msg"), "msqid perms"));
}
TEST(Sys, MemoryOfTheNode) {
  EXPECT_GT(std::stoull("0" + ProcField("/sys/devices/system/node/node0/meminfo", "Node 0 MemTotal")), 1000u);
}
TEST(Proc, UptimeAndLoadavg) {
  const auto uptime = Words(ReadFile("/proc/uptime"));
  ASSERT_EQ(uptime.size(), 2u);
  EXPECT_GT(std::stod(uptime[0]), 0);
  const auto load = Words(ReadFile("/proc/loadavg"));
  ASSERT_EQ(load.size(), 5u);
  EXPECT_TRUE(Has(load[3], "/"));
}
TEST(Proc, RandomUuidDiffersEachTime) {
  const std::string a = ReadFile("/proc/sys/kernel/random/uuid"), b = ReadFile("/proc/sys/kernel/random/uuid");
  EXPECT_EQ(a.size(), 37u);
  EXPECT_NE(a, b);
}
TEST(Proc, ReadInSmallPieces) {
  const std::string whole = ReadFile("/proc/self/limits");
  const ScopedFd fd(open("/proc/self/limits", O_RDONLY));
  std::string pieces;
  char c;
  while (read(fd.get(), &c, 1) == 1) pieces += c;
  EXPECT_EQ(pieces, whole);
}
TEST(Proc, CannotCreateOrRemove) {
  EXPECT_FAIL(open("/proc/new", O_CREAT | O_WRONLY, 0600), ENOENT);
  EXPECT_FAIL(mkdir("/proc/self/new", 0700), ENOENT);
  EXPECT_FAIL(rmdir("/proc/self/task"), EPERM);
}

TEST(Sys, Cpus) {
  const std::string online = ReadFile("/sys/devices/system/cpu/online");
  EXPECT_EQ(online.substr(0, 1), "0");
  EXPECT_GE(sysconf(_SC_NPROCESSORS_ONLN), 1);
}

TEST(Device, Null) {
  const ScopedFd fd(open("/dev/null", O_RDWR));
  char b;
  EXPECT_EQ(read(fd.get(), &b, 1), 0);
  EXPECT_EQ(write(fd.get(), "discarded", 9), 9);
  EXPECT_EQ(lseek(fd.get(), 100, SEEK_SET), 0);
  pollfd p = {fd.get(), POLLIN | POLLOUT, 0};
  EXPECT_EQ(poll(&p, 1, 0), 1);
}
TEST(Device, Zero) {
  const ScopedFd fd(open("/dev/zero", O_RDWR));
  char b[100];
  memset(b, 1, sizeof b);
  EXPECT_EQ(read(fd.get(), b, sizeof b), 100);
  EXPECT_EQ(b[50], 0);
  EXPECT_EQ(write(fd.get(), b, 10), 10);
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd.get());
  EXPECT_EQ(m.data()[0], 0);
  m.data()[0] = 1;
}
TEST(Device, Full) {
  const ScopedFd fd(open("/dev/full", O_RDWR));
  char b[4] = {1, 1, 1, 1};
  EXPECT_EQ(read(fd.get(), b, 4), 4);
  EXPECT_EQ(b[0], 0);
  EXPECT_FAIL(write(fd.get(), "x", 1), ENOSPC);
}
class RandomDevice : public testing::TestWithParam<const char*> {};
TEST_P(RandomDevice, GivesDifferentBytes) {
  const ScopedFd fd(open(GetParam(), O_RDWR));
  ASSERT_OK(fd.get());
  char a[32] = {}, b[32] = {};
  EXPECT_EQ(read(fd.get(), a, 32), 32);
  EXPECT_EQ(read(fd.get(), b, 32), 32);
  EXPECT_NE(memcmp(a, b, 32), 0);
  EXPECT_EQ(write(fd.get(), a, 32), 32);
}
INSTANTIATE_TEST_SUITE_P(, RandomDevice, testing::Values("/dev/random", "/dev/urandom"));
TEST(Device, StandardLinks) {
  EXPECT_EQ(ReadLink("/dev/fd"), "/proc/self/fd");
  EXPECT_EQ(ReadLink("/dev/stdin"), "/proc/self/fd/0");
  EXPECT_EQ(ReadLink("/dev/stdout"), "/proc/self/fd/1");
}
TEST(Device, ShmIsWritable) {
  const int fd = shm_open("/guest-shm", O_CREAT | O_RDWR | O_EXCL, 0600);
  ASSERT_OK(fd);
  EXPECT_OK(ftruncate(fd, kPage));
  EXPECT_OK(shm_unlink("/guest-shm"));
  close(fd);
}

TEST(System, Uname) {
  utsname u;
  ASSERT_OK(uname(&u));
  EXPECT_STREQ(u.sysname, "Linux");
  EXPECT_STREQ(u.machine, "x86_64");
  int major = 0, minor = 0;
  ASSERT_EQ(sscanf(u.release, "%d.%d", &major, &minor), 2);
  EXPECT_GE(major, 5);
  EXPECT_FAIL(syscall(SYS_uname, BadPointer()), EFAULT);
}
TEST(System, Sysinfo) {
  struct sysinfo info;
  ASSERT_OK(sysinfo(&info));
  timespec since_boot;
  ASSERT_OK(clock_gettime(CLOCK_BOOTTIME, &since_boot));
  EXPECT_NEAR(static_cast<double>(info.uptime), static_cast<double>(since_boot.tv_sec), 2);
  EXPECT_GT(info.totalram, 0u);
  EXPECT_LE(info.freeram, info.totalram);
  EXPECT_GE(info.procs, 1);
  EXPECT_EQ(info.mem_unit, 1u);
}
TEST(System, Getrandom) {
  char a[64] = {}, b[64] = {};
  EXPECT_EQ(getrandom(a, sizeof a, 0), 64);
  EXPECT_EQ(getrandom(b, sizeof b, GRND_NONBLOCK), 64);
  EXPECT_NE(memcmp(a, b, sizeof a), 0);
  EXPECT_EQ(getrandom(a, 0, 0), 0);
  EXPECT_FAIL(getrandom(a, 1, 0x100), EINVAL);
  EXPECT_FAIL(getrandom(a, 1, GRND_RANDOM | GRND_INSECURE), EINVAL);
  EXPECT_FAIL(getrandom(BadPointer(), 1, 0), EFAULT);
}
TEST(System, GetrandomMegabyte) {
  std::string b(1 << 20, '\0');
  EXPECT_EQ(getrandom(b.data(), b.size(), 0), 1 << 20);
  EXPECT_NE(b.substr(b.size() - 64), std::string(64, '\0'));
}
TEST(System, PrivilegedCallsAreRefusedToUsers) {
  EXPECT_TRUE(PassesAsUser(1000, [] {
    EXPECT_FAIL(sethostname("x", 1), EPERM);
    EXPECT_FAIL(syscall(SYS_swapon, "/x", 0), EPERM);
    EXPECT_FAIL(syscall(SYS_reboot, 0xfee1dead, 672274793, 0, nullptr), EPERM);
    EXPECT_FAIL(syscall(SYS_acct, "/x"), EPERM);
  }));
}

}  // namespace
}  // namespace moat::guest
