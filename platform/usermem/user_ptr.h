// Typed guest pointers: the direction is in the type, so a handler cannot write through a const argument.
//   Result<int64_t> SysClockGettime(Task& t, int clock, UserOut<abi::Timespec> ts)
//     TRY(ts.Write(t.memory(), value));
// T must be trivially copyable without padding surprises (see platform/abi).
#ifndef MOAT_PLATFORM_USERMEM_USER_PTR_H_
#define MOAT_PLATFORM_USERMEM_USER_PTR_H_

#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "platform/usermem/guest_memory.h"

namespace moat {

namespace internal {
template <typename T>
class UserBase {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  UserBase() = default;
  explicit UserBase(GuestAddr addr) : addr_(addr) {}
  GuestAddr addr() const { return addr_; }
  explicit operator bool() const { return addr_ != 0; }

 protected:
  // addr + i*sizeof(T), EFAULT on overflow.
  Result<GuestAddr> At(size_t i) const {
    uint64_t off, at;
    if (__builtin_mul_overflow(i, sizeof(T), &off) || __builtin_add_overflow(addr_, off, &at)) return kEFAULT;
    return at;
  }
  Result<T> DoRead(GuestMemory& m, size_t i) const {
    T v;
    if (m.CopyIn(&v, TRY(At(i)), sizeof v) != sizeof v) return kEFAULT;
    return v;
  }
  Result<void> DoWrite(GuestMemory& m, const T& v, size_t i) const {
    if (m.CopyOut(TRY(At(i)), &v, sizeof v) != sizeof v) return kEFAULT;
    return {};
  }
  GuestAddr addr_ = 0;
};
}  // namespace internal

template <typename T>
class UserIn : public internal::UserBase<T> {
 public:
  using internal::UserBase<T>::UserBase;
  Result<T> Read(GuestMemory& m) const { return this->DoRead(m, 0); }
  Result<T> ReadAt(GuestMemory& m, size_t i) const { return this->DoRead(m, i); }
  // `n` was checked against a limit by the caller.
  Result<std::vector<T>> ReadArray(GuestMemory& m, size_t n) const {
    std::vector<T> v(n);
    if (n != 0 && m.CopyIn(v.data(), this->addr_, n * sizeof(T)) != n * sizeof(T)) return kEFAULT;
    return v;
  }
};

template <typename T>
class UserOut : public internal::UserBase<T> {
 public:
  using internal::UserBase<T>::UserBase;
  Result<void> Write(GuestMemory& m, const T& v) const { return this->DoWrite(m, v, 0); }
  Result<void> WriteAt(GuestMemory& m, size_t i, const T& v) const { return this->DoWrite(m, v, i); }
  Result<void> WriteArray(GuestMemory& m, std::span<const T> v) const {
    if (!v.empty() && m.CopyOut(this->addr_, v.data(), v.size_bytes()) != v.size_bytes()) return kEFAULT;
    return {};
  }
};

template <typename T>
class UserInOut : public internal::UserBase<T> {
 public:
  using internal::UserBase<T>::UserBase;
  Result<T> Read(GuestMemory& m) const { return this->DoRead(m, 0); }
  Result<T> ReadAt(GuestMemory& m, size_t i) const { return this->DoRead(m, i); }
  Result<void> Write(GuestMemory& m, const T& v) const { return this->DoWrite(m, v, 0); }
  Result<void> WriteAt(GuestMemory& m, size_t i, const T& v) const { return this->DoWrite(m, v, i); }
};

// A NUL-terminated string argument. Read: kEFAULT on a fault, kENAMETOOLONG past `max` bytes incl. the NUL.
class UserString {
 public:
  UserString() = default;
  explicit UserString(GuestAddr addr) : addr_(addr) {}
  GuestAddr addr() const { return addr_; }
  explicit operator bool() const { return addr_ != 0; }
  Result<std::string> Read(GuestMemory& m, size_t max) const;
  // getname(9): PATH_MAX bytes at most.
  Result<std::string> ReadPath(GuestMemory& m) const { return Read(m, 4096); }

 private:
  GuestAddr addr_ = 0;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_USERMEM_USER_PTR_H_
