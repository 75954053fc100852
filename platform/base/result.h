// Result<T>: a value or an Errno; the only error type of the guest path.
//   Result<RefPtr<Inode>> Lookup(...);
//   RefPtr<Inode> inode = TRY(dir->Lookup(...));   // returns the Errno to the caller on failure
//   TRY(inode->SetAttr(...));                      // the same for Result<void>
#ifndef MOAT_PLATFORM_BASE_RESULT_H_
#define MOAT_PLATFORM_BASE_RESULT_H_

#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>

#include "platform/base/errno.h"

namespace moat {

template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  // Implicit on purpose: `return kENOENT;` and `return value;` are the two ways out of a function.
  Result(Errno e) : error_(e) {  // NOLINT(google-explicit-constructor)
    if (e == Errno::kOK) __builtin_trap();
  }
  template <typename U = T>
  requires(std::is_constructible_v<T, U&&> && !std::is_same_v<std::remove_cvref_t<U>, Errno> &&
           !std::is_same_v<std::remove_cvref_t<U>, Result>) Result(U&& value)
      : error_(Errno::kOK) {  // NOLINT(google-explicit-constructor)
    new (&storage_.value) T(std::forward<U>(value));
  }
  Result(Result&& o) noexcept : error_(o.error_) {
    if (ok()) new (&storage_.value) T(std::move(o.storage_.value));
  }
  Result(const Result& o) requires std::is_copy_constructible_v<T> : error_(o.error_) {
    if (ok()) new (&storage_.value) T(o.storage_.value);
  }
  Result& operator=(const Result& o) requires std::is_copy_constructible_v<T> { return *this = Result(o); }
  Result& operator=(Result&& o) noexcept {
    if (this != &o) {
      this->~Result();
      new (this) Result(std::move(o));
    }
    return *this;
  }
  ~Result() {
    if (ok()) storage_.value.~T();
  }

  bool ok() const { return error_ == Errno::kOK; }
  explicit operator bool() const { return ok(); }
  // kOK when there is a value.
  Errno error() const { return error_; }

  T& value() & { return Checked().value; }
  const T& value() const& { return const_cast<Result*>(this)->Checked().value; }
  T&& value() && { return std::move(Checked().value); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  T value_or(T fallback) const& { return ok() ? storage_.value : std::move(fallback); }
  T value_or(T fallback) && { return ok() ? std::move(storage_.value) : std::move(fallback); }

 private:
  union Storage {
    Storage() {}
    ~Storage() {}
    T value;
  };
  // A value taken from an error is a bug of ours, never a guest's doing: stop at once.
  Storage& Checked() {
    if (!ok()) __builtin_trap();
    return storage_;
  }
  Errno error_;
  Storage storage_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;
  Result() = default;
  Result(Errno e) : error_(e) {}  // NOLINT(google-explicit-constructor); kOK is success here
  bool ok() const { return error_ == Errno::kOK; }
  explicit operator bool() const { return ok(); }
  Errno error() const { return error_; }
  void value() const {
    if (!ok()) __builtin_trap();
  }

 private:
  Errno error_ = Errno::kOK;
};

inline Result<void> Ok() { return {}; }

namespace internal {
template <typename T>
T TakeValue(Result<T>&& r) {
  return std::move(r).value();
}
inline void TakeValue(Result<void>&&) {}
}  // namespace internal

}  // namespace moat

// A GNU statement expression: evaluates to the value or returns the Errno from the function.
#define TRY(expr)                                            \
  ({                                                         \
    auto moat_try_result = (expr);                           \
    if (!moat_try_result.ok()) [[unlikely]]                  \
      return moat_try_result.error();                        \
    ::moat::internal::TakeValue(std::move(moat_try_result)); \
  })

#endif  // MOAT_PLATFORM_BASE_RESULT_H_
