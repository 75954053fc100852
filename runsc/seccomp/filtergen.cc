// Build-time host tool: turns the lists of host calls (*.inc) into BPF programs and a printable table, as C++
// source on stdout. libseccomp runs here and nowhere else: the runsc binary only carries its output.
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/falloc.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/memfd.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace {

struct Condition {
  unsigned arg;
  scmp_compare op;
  uint64_t a, b;
  std::string text;
};

enum class Answer { kAllow, kRefuse };

struct Row {
  const char* source;  // the part of the program that makes the call
  const char* name;
  int number;
  Answer answer;
  int refuse_errno;
  const char* errno_name;
  const char* reason;
  std::vector<Condition> conditions;
};

#define ARG_TEXT(n) "arg" #n
#define ARG_EQ(n, value) \
  Condition { n, SCMP_CMP_EQ, static_cast<uint64_t>(value), 0, ARG_TEXT(n) " == " #value }
#define ARG_NE(n, value) \
  Condition { n, SCMP_CMP_NE, static_cast<uint64_t>(value), 0, ARG_TEXT(n) " != " #value }
#define ARG_LE(n, value) \
  Condition { n, SCMP_CMP_LE, static_cast<uint64_t>(value), 0, ARG_TEXT(n) " <= " #value }
#define ARG_MASKED(n, mask, value)                                                    \
  Condition {                                                                         \
    n, SCMP_CMP_MASKED_EQ, static_cast<uint64_t>(mask), static_cast<uint64_t>(value), \
        "(" ARG_TEXT(n) " & (" #mask ")) == " #value                                  \
  }

#define HOST_CALL(name, reason) {MOAT_SOURCE, #name, SYS_##name, Answer::kAllow, 0, "", reason, {}},
#define HOST_CALL_IF(name, reason, ...) {MOAT_SOURCE, #name, SYS_##name, Answer::kAllow, 0, "", reason, {__VA_ARGS__}},
#define HOST_REFUSE(name, error, reason) {MOAT_SOURCE, #name, SYS_##name, Answer::kRefuse, error, #error, reason, {}},

// What the sentry calls on every platform.
const std::vector<Row> kCommonRows = {
#define MOAT_SOURCE "platform"
#include "platform/host_calls.inc"
#undef MOAT_SOURCE
#define MOAT_SOURCE "hostfs"
#include "fs/hostfs/host_calls.inc"
#undef MOAT_SOURCE
#define MOAT_SOURCE "boot"
#include "runsc/boot/host_calls.inc"
#undef MOAT_SOURCE
};

const std::vector<Row> kGoferRows = {
#define MOAT_SOURCE "gofer"
#include "runsc/gofer/gofer_rules.inc"
#undef MOAT_SOURCE
};

const std::vector<Row> kPtraceRows = {
#define MOAT_SOURCE "ptrace"
#include "platform/ptrace/host_calls.inc"
#undef MOAT_SOURCE
};

const std::vector<Row> kPtraceStubRows = {
#define MOAT_SOURCE "stub"
#include "platform/ptrace/stub_rules.inc"
#undef MOAT_SOURCE
};

const std::vector<Row> kSystrapRows = {
#define MOAT_SOURCE "systrap"
#include "platform/systrap/host_calls.inc"
#undef MOAT_SOURCE
};

const std::vector<Row> kSystrapStubRows = {
#define MOAT_SOURCE "stub"
#include "platform/systrap/stub_rules.inc"
#undef MOAT_SOURCE
};

std::vector<Row> Joined(std::vector<Row> a, const std::vector<Row>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

[[noreturn]] void Die(const std::string& what) {
  fprintf(stderr, "filtergen: %s\n", what.c_str());
  exit(1);
}

std::string Quote(const std::string& s) {
  std::string out = "\"";
  for (char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

// libseccomp only writes programs to an fd.
std::vector<sock_filter> Export(scmp_filter_ctx ctx) {
  int fd = memfd_create("filter", MFD_CLOEXEC);
  if (fd < 0 || seccomp_export_bpf(ctx, fd) != 0) Die("cannot export the filter");
  off_t size = lseek(fd, 0, SEEK_END);
  std::vector<sock_filter> code(size / sizeof(sock_filter));
  if (pread(fd, code.data(), size, 0) != size) Die("cannot read the filter back");
  close(fd);
  return code;
}

std::vector<sock_filter> Compile(const std::vector<Row>& rows, uint32_t default_action, uint32_t bad_arch_action) {
  scmp_filter_ctx ctx = seccomp_init(default_action);
  if (ctx == nullptr) Die("seccomp_init failed");
  seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, bad_arch_action);
  seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
  // A row without conditions makes the conditional rows of the same call redundant, and an allowing row wins over
  // a refusing one: what a newer part of the program really needs, an older list must not refuse.
  std::map<int, bool> open, allowed;
  for (const Row& r : rows) {
    if (r.answer == Answer::kAllow) allowed[r.number] = true;
    if (r.answer == Answer::kAllow && r.conditions.empty()) open[r.number] = true;
  }
  std::map<int, bool> done;
  for (const Row& r : rows) {
    uint32_t action = r.answer == Answer::kAllow ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(r.refuse_errno);
    int result = 0;
    if (r.answer == Answer::kRefuse && allowed[r.number]) continue;
    if (open[r.number] || r.answer == Answer::kRefuse) {
      if (std::exchange(done[r.number], true)) continue;
      result = seccomp_rule_add_array(ctx, action, r.number, 0, nullptr);
    } else {
      std::vector<scmp_arg_cmp> args;
      for (const Condition& c : r.conditions) args.push_back({c.arg, c.op, c.a, c.b});
      result = seccomp_rule_add_array(ctx, action, r.number, args.size(), args.data());
      if (result == -EEXIST) result = 0;
    }
    if (result != 0) Die(std::string("row of ") + r.name + ": " + strerror(-result));
  }
  std::vector<sock_filter> code = Export(ctx);
  seccomp_release(ctx);
  return code;
}

void Emit(const char* name, const char* title, const std::vector<Row>& rows, uint32_t default_action,
          uint32_t bad_arch_action = SCMP_ACT_KILL_PROCESS) {
  std::vector<sock_filter> code = Compile(rows, default_action, bad_arch_action);
  printf("namespace {\nconst sock_filter k%sCode[] = {\n", name);
  for (const sock_filter& f : code) printf("    {0x%x, %u, %u, 0x%x},\n", f.code, f.jt, f.jf, f.k);
  printf("};\nconst HostCallRow k%sRows[] = {\n", name);
  for (const Row& r : rows) {
    std::string text;
    for (const Condition& c : r.conditions) text += (text.empty() ? "" : ", ") + c.text;
    printf("    {%s, %d, %s, %s, %s, %s},\n", Quote(r.name).c_str(), r.number, Quote(r.source).c_str(),
           Quote(text).c_str(), Quote(r.errno_name).c_str(), Quote(r.reason).c_str());
  }
  // A list may still be empty while its owner writes it; C++ knows no empty arrays.
  if (rows.empty()) printf("    {\"\", -1, \"\", \"\", \"\", \"\"},\n");
  printf("};\n}  // namespace\nconst FilterProgram k%sFilter = {%s, {k%sCode, %zu}, {k%sRows, %zu}};\n\n", name,
         Quote(title).c_str(), name, code.size(), name, rows.size());
}

}  // namespace

int main() {
  printf("// Generated by runsc/seccomp/filtergen.cc from the lists of host calls.\n");
  printf("#include \"runsc/seccomp/filters.h\"\n\nnamespace moat {\n");
  Emit("SentryPtrace", "sentry", Joined(kCommonRows, kPtraceRows), SCMP_ACT_TRAP);
  Emit("StubPtrace", "stub", kPtraceStubRows, SCMP_ACT_KILL_PROCESS);
  Emit("SentrySystrap", "sentry", Joined(kCommonRows, kSystrapRows), SCMP_ACT_TRAP);
  // Weaker than the user notification of a guest thread's own filter, which so sees every call (seccomp(2): the
  // strictest answer wins); without such a filter it is ENOSYS.
  Emit("StubSystrap", "stub", kSystrapStubRows, SCMP_ACT_TRACE(0), SCMP_ACT_TRACE(0));
  Emit("Gofer", "gofer", kGoferRows, SCMP_ACT_TRAP);
  printf("}  // namespace moat\n");
  return 0;
}
