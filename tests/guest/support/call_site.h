// `syscall` instructions to be made hot, in code that is written at run time, and the truth about the caller's identity
// from /proc, which makes none of the calls under test.
#ifndef MOAT_TESTS_GUEST_SUPPORT_CALL_SITE_H_
#define MOAT_TESTS_GUEST_SUPPORT_CALL_SITE_H_

#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>

#include <array>
#include <string>
#include <vector>

#include "tests/guest/support/mapping.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {

using Bytes = std::vector<uint8_t>;
inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
inline Bytes MovEax(uint32_t number) {
  return {0xb8, uint8_t(number), uint8_t(number >> 8), uint8_t(number >> 16), uint8_t(number >> 24)};
}
inline const Bytes kXorEax = {0x31, 0xc0}, kSyscall = {0x0f, 0x05}, kRet = {0xc3}, kBreakpoint = {0xcc};
inline const Bytes kMovEdiEax = {0x89, 0xf8};
// The two surroundings of a site: a function with padding behind it, and one that other code follows for a while.
inline Bytes Padded(const Bytes& body) { return body + kRet + Bytes(15, 0xcc); }
inline Bytes Dense(const Bytes& body) {
  Bytes code = body + kRet;
  for (int i = 0; i < 40; ++i) code = code + MovEax(1);
  return code + kRet;
}
inline Bytes Call(uint32_t number) { return MovEax(number) + kSyscall; }

using CallFn = long(long, long, long);
inline constexpr size_t kCodeOffset = 64;  // of the code in its mapping

// Code in a mapping of its own, which is not writable by the time it runs. Each lies at another place in its page, for
// mappings come back at old addresses, and what a sandbox knows about those must not be what is tested.
class Code {
 public:
  explicit Code(const Bytes& bytes) : size_(bytes.size()), memory_(2 * kPage) {
    static size_t made = 0;
    offset_ = kCodeOffset + 16 * (++made % 96);
    Rewrite(bytes);
  }
  // Makes it writable for as long as it takes.
  void Rewrite(const Bytes& bytes) {
    EXPECT_OK(mprotect(memory_.data(), memory_.size(), PROT_READ | PROT_WRITE));
    memcpy(at(), bytes.data(), bytes.size());
    EXPECT_OK(mprotect(memory_.data(), memory_.size(), PROT_READ | PROT_EXEC));
  }
  char* page() const { return memory_.data(); }
  char* at(size_t offset = 0) const { return memory_.data() + offset_ + offset; }
  size_t size() const { return size_; }
  long operator()(long a = 0, long b = 0, long c = 0) const { return reinterpret_cast<CallFn*>(at())(a, b, c); }
  bool Contains(uintptr_t ip) const { return ip - reinterpret_cast<uintptr_t>(page()) < memory_.size(); }

 private:
  size_t size_, offset_;
  Mapping memory_;
};

inline constexpr int kHot = 300;
template <typename F>
void Heat(const F& call) {
  for (int i = 0; i < kHot; ++i) call();
}

// The calls that only concern the caller, and what they answer.
inline constexpr std::array<int, 7> kIdentityCalls = {SYS_getpid,  SYS_gettid, SYS_getppid, SYS_getuid,
                                                      SYS_geteuid, SYS_getgid, SYS_getegid};
using Identity = std::array<long, 7>;

inline long StatusField(const std::string& status, const char* name, int column) {
  const char* at = strstr(status.c_str(), (std::string("\n") + name + ":").c_str());
  if (at == nullptr) return -1;
  at += strlen(name) + 2;
  char* end = nullptr;
  long value = -1;
  for (int i = 0; i <= column; ++i) {
    value = strtol(at, &end, 10);
    at = end;
  }
  return value;
}
inline Identity TrueIdentity() {
  const std::string s = ReadFile("/proc/thread-self/status");
  return {StatusField(s, "Tgid", 0), StatusField(s, "Pid", 0), StatusField(s, "PPid", 0), StatusField(s, "Uid", 0),
          StatusField(s, "Uid", 1),  StatusField(s, "Gid", 0), StatusField(s, "Gid", 1)};
}

// A hot site of each surrounding for each of those calls.
class HotSites {
 public:
  HotSites() : code_(All()) { Heat(); }
  void Heat() const {
    for (int i = 0; i < kHot; ++i) (void)Ask();
  }
  Identity Padded() const { return Ask(0); }
  Identity Dense() const { return Ask(7); }
  // -1 where the two disagree.
  Identity Ask() const {
    Identity padded = Padded();
    const Identity dense = Dense();
    for (size_t i = 0; i < padded.size(); ++i) {
      if (padded[i] != dense[i]) padded[i] = -1;
    }
    return padded;
  }
  // By place in kIdentityCalls.
  long Padded(size_t i) const { return Fn(i)(0, 0, 0); }
  const Code& code() const { return code_; }

 private:
  static constexpr size_t kStride = 256;
  static Bytes All() {
    Bytes all;
    for (int dense = 0; dense < 2; ++dense) {
      for (int call : kIdentityCalls) {
        Bytes one = dense != 0 ? guest::Dense(Call(call)) : guest::Padded(Call(call));
        one.resize(kStride, 0xc3);
        all = all + one;
      }
    }
    return all;
  }
  CallFn* Fn(size_t n) const { return reinterpret_cast<CallFn*>(code_.at(n * kStride)); }
  Identity Ask(size_t first) const {
    Identity answer;
    for (size_t i = 0; i < answer.size(); ++i) answer[i] = Fn(first + i)(0, 0, 0);
    return answer;
  }

  Code code_;
};

}  // namespace moat::guest

#endif  // MOAT_TESTS_GUEST_SUPPORT_CALL_SITE_H_
