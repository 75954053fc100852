// The trampoline's page and behind it the seccomp programs that agent and guest threads load from it.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <cstring>
#include <initializer_list>
#include <optional>
#include <utility>
#include <vector>

#include "platform/base/log.h"
#include "platform/systrap/layout.h"

extern "C" {
extern const char systrap_start[], systrap_end[], systrap_zygote[], systrap_handler[];
extern const char systrap_enter_ip[], systrap_copy_ip[], systrap_sigreturn_ip[], systrap_wake_ip[];
extern const char systrap_call[], systrap_call_flags[], systrap_call_restored[], systrap_call_end[];
extern const char systrap_mailbox_posting[], systrap_mailbox[], systrap_mailbox_answered[], systrap_call_slow[];
extern const char systrap_sleep_ip[], systrap_frame_sleep_ip[];
extern const char systrap_cpuid[], systrap_cpuid_flags[], systrap_cpuid_stored[], systrap_cpuid_final[];
extern const char systrap_cpuid_last[], systrap_cpuid_slow[], systrap_cpuid_restored[], systrap_cpuid_end[];
}

namespace moat::systrap_platform {
namespace {

uint64_t Address(const char* label) { return SYSTRAP_TEXT + static_cast<uint64_t>(label - systrap_start); }

sock_filter Statement(int code, uint32_t k) { return {static_cast<uint16_t>(code), 0, 0, k}; }
sock_filter LoadWord(size_t offset) { return Statement(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); }
sock_filter Answer(uint32_t action) { return Statement(BPF_RET | BPF_K, action); }
// Skips `then` instructions when equal, `otherwise` when not.
sock_filter IfEqual(uint32_t value, uint8_t then, uint8_t otherwise) {
  return {BPF_JMP | BPF_JEQ | BPF_K, then, otherwise, value};
}

// `call` from the instruction before `ip` is allowed, from anywhere else it gets `action`.
void OnlyFrom(std::vector<sock_filter>& out, uint32_t call, uint64_t ip, uint32_t action) {
  out.push_back(IfEqual(call, 0, 6));
  out.push_back(LoadWord(offsetof(seccomp_data, instruction_pointer)));
  out.push_back(IfEqual(static_cast<uint32_t>(ip), 0, 3));
  out.push_back(LoadWord(offsetof(seccomp_data, instruction_pointer) + 4));
  out.push_back(IfEqual(static_cast<uint32_t>(ip >> 32), 0, 1));
  out.push_back(Answer(SECCOMP_RET_ALLOW));
  out.push_back(Answer(action));
}

// Everything comes to the sentry: as a notification, or by way of the handler where the sentry needs or changes more
// than a call's arguments and result.
std::vector<sock_filter> GuestFilter() {
  std::vector<sock_filter> out = {
      LoadWord(offsetof(seccomp_data, arch)),
      IfEqual(AUDIT_ARCH_X86_64, 1, 0),
      Answer(SECCOMP_RET_TRAP),  // int 0x80, sysenter
      LoadWord(offsetof(seccomp_data, nr)),
  };
  OnlyFrom(out, SYS_rt_sigreturn, SigreturnAddress(), SECCOMP_RET_TRAP);
  OnlyFrom(out, SYS_futex, WakeAddress(), SECCOMP_RET_USER_NOTIF);
  // The last ones most often signal the caller itself, whose handler then starts from this frame.
  for (uint32_t call :
       {SYS_clone, SYS_fork, SYS_vfork, SYS_clone3, SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_arch_prctl,
        SYS_sigaltstack, SYS_kill, SYS_tkill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo}) {
    out.push_back(IfEqual(call, 0, 1));
    out.push_back(Answer(SECCOMP_RET_TRAP));
  }
  out.push_back(Answer(SECCOMP_RET_USER_NOTIF));
  return out;
}

// The agent's other calls are those that the filter of all stub threads lets through.
std::vector<sock_filter> AgentFilter() {
  return {LoadWord(offsetof(seccomp_data, nr)), IfEqual(SYSTRAP_ENTER, 0, 1), Answer(SECCOMP_RET_USER_NOTIF),
          Answer(SECCOMP_RET_ALLOW)};
}

class ThunkWriter {
 public:
  // At stub address `at`, in the image at `to`.
  ThunkWriter(uint64_t at, std::byte* to) : at_(at), start_(to), to_(to) {}
  void Add(std::initializer_list<uint8_t> opcode, std::optional<uint32_t> immediate = {}) {
    for (uint8_t byte : opcode) *to_++ = std::byte{byte};
    if (immediate) memcpy(std::exchange(to_, to_ + sizeof *immediate), &*immediate, sizeof *immediate);
  }
  void Jump(uint64_t target) { Add({0xe9}, static_cast<uint32_t>(target - (at_ + size() + 5))); }
  uint64_t size() const { return static_cast<uint64_t>(to_ - start_); }

 private:
  const uint64_t at_;
  const std::byte* const start_;
  std::byte* to_;
};

// The thunk of a site: a jump to systrap_call; behind it the real call; behind that the entry for sites whose number
// must be loaded.
void WriteCallThunk(uint32_t site, ThunkWriter& to) {
  to.Add({0xb9}, site * 8);  // mov $8*site, %ecx
  to.Jump(CallAddress());
  MOAT_CHECK(to.size() == THUNK_CALL);
  to.Add({0x0f, 0x05});  // syscall
  MOAT_CHECK(to.size() == THUNK_RETURN);
  to.Add({0xff, 0x24, 0x25}, SYSTRAP_RETURNS + site * 8);  // jmp *return
  MOAT_CHECK(to.size() == THUNK_NUMBERED);
  to.Add({0x8b, 0x04, 0x25}, SYSTRAP_TABLES + site * TABLE_ENTRY + TABLE_NUMBER);  // mov number, %eax
  to.Add({0xeb, static_cast<uint8_t>(-static_cast<int>(to.size() + 2))});          // jmp to the start
}

// Of `cpuid`, which leaves nothing in ebx: loads the leaf, jumps to systrap_cpuid; behind that the real instruction.
void WriteCpuidThunk(uint32_t site, ThunkWriter& to) {
  to.Add({0x8b, 0x04, 0x25}, SYSTRAP_TABLES + site * TABLE_ENTRY + TABLE_NUMBER);  // mov number, %eax
  MOAT_CHECK(to.size() == THUNK_CPUID_UNNUMBERED);
  to.Add({0xbb}, site * 8);  // mov $8*site, %ebx
  to.Jump(CpuidAddress());
  MOAT_CHECK(to.size() == THUNK_CPUID);
  to.Add({0x0f, 0xa2});  // cpuid
  MOAT_CHECK(to.size() == THUNK_CPUID_RETURN);
  to.Add({0xff, 0x24, 0x25}, SYSTRAP_RETURNS + site * 8);  // jmp *return
}

void WriteThunk(uint32_t site, std::byte* image) {
  ThunkWriter to(SYSTRAP_THUNKS + uint64_t{site} * THUNK_SIZE, image);
  if (site < SYSTRAP_CPUID_SITES) {
    WriteCpuidThunk(site, to);
  } else {
    WriteCallThunk(site, to);
  }
  MOAT_CHECK(to.size() <= THUNK_SIZE);
}

}  // namespace

uint64_t CallAddress() { return Address(systrap_call); }
uint64_t CallFlagsAddress() { return Address(systrap_call_flags); }
uint64_t CallRestoredAddress() { return Address(systrap_call_restored); }
uint64_t CallEndAddress() { return Address(systrap_call_end); }
uint64_t MailboxAddress() { return Address(systrap_mailbox); }
uint64_t MailboxPostingAddress() { return Address(systrap_mailbox_posting); }
uint64_t CallSlowAddress() { return Address(systrap_call_slow); }
uint64_t MailboxAnsweredAddress() { return Address(systrap_mailbox_answered); }
uint64_t SleepAddress() { return Address(systrap_sleep_ip); }
uint64_t FrameSleepAddress() { return Address(systrap_frame_sleep_ip); }
uint64_t CpuidAddress() { return Address(systrap_cpuid); }
uint64_t CpuidFlagsAddress() { return Address(systrap_cpuid_flags); }
uint64_t CpuidStoredAddress() { return Address(systrap_cpuid_stored); }
uint64_t CpuidFinalAddress() { return Address(systrap_cpuid_final); }
uint64_t CpuidLastAddress() { return Address(systrap_cpuid_last); }
uint64_t CpuidSlowAddress() { return Address(systrap_cpuid_slow); }
uint64_t CpuidRestoredAddress() { return Address(systrap_cpuid_restored); }
uint64_t CpuidEndAddress() { return Address(systrap_cpuid_end); }
const uint8_t* TrampolineBytes(uint64_t address) {
  return reinterpret_cast<const uint8_t*>(systrap_start) + (address - SYSTRAP_TEXT);
}
uint64_t EnterAddress() { return Address(systrap_enter_ip); }
uint64_t CopyAddress() { return Address(systrap_copy_ip); }
uint64_t SigreturnAddress() { return Address(systrap_sigreturn_ip); }
uint64_t WakeAddress() { return Address(systrap_wake_ip); }
uint64_t HandlerAddress() { return Address(systrap_handler); }
uint64_t ZygoteOffset() { return static_cast<uint64_t>(systrap_zygote - systrap_start); }

void WriteImage(std::byte* to) {
  constexpr size_t kPage = 4096;
  const auto size = static_cast<size_t>(systrap_end - systrap_start);
  MOAT_CHECK(size <= kPage);
  memset(to, 0xcc, SYSTRAP_IMAGE_SIZE);
  memcpy(to, systrap_start, size);
  // Two struct sock_fprog, then the programs: the guest threads' and the agent's.
  uint64_t at = 2 * sizeof(sock_fprog);
  int index = 0;
  for (const std::vector<sock_filter>& code : {GuestFilter(), AgentFilter()}) {
    const sock_fprog program = {static_cast<unsigned short>(code.size()),
                                reinterpret_cast<sock_filter*>(SYSTRAP_FILTERS + at)};
    memcpy(to + kPage + static_cast<size_t>(index++) * sizeof program, &program, sizeof program);
    memcpy(to + kPage + at, code.data(), code.size() * sizeof(sock_filter));
    at += code.size() * sizeof(sock_filter);
  }
  MOAT_CHECK(at <= kPage);
  std::byte* thunks = to + (SYSTRAP_THUNKS - SYSTRAP_TEXT);
  for (uint32_t site = 0; site < SYSTRAP_MAX_SITES; ++site) WriteThunk(site, thunks + site * THUNK_SIZE);
}

}  // namespace moat::systrap_platform
