// Intrusive reference counting. RefCounted starts at one reference, which MakeRef or AdoptRef takes over.
// Thread-safety: the count is atomic; the pointer itself (RefPtr) is not.
#ifndef MOAT_PLATFORM_BASE_REF_PTR_H_
#define MOAT_PLATFORM_BASE_REF_PTR_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace moat {

class RefCounted {
 public:
  RefCounted() = default;
  RefCounted(const RefCounted&) = delete;
  RefCounted& operator=(const RefCounted&) = delete;

  void AddRef() const { refs_.fetch_add(1, std::memory_order_relaxed); }
  // Takes a reference unless the object is already being destroyed; for caches that hold plain pointers.
  bool TryAddRef() const {
    int64_t n = refs_.load(std::memory_order_relaxed);
    while (n > 0) {
      if (refs_.compare_exchange_weak(n, n + 1, std::memory_order_acquire)) return true;
    }
    return false;
  }
  void Unref() const {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) const_cast<RefCounted*>(this)->OnLastUnref();
  }
  // Whether the caller's reference is the only one; somebody who is handed another meanwhile got it from the caller.
  bool HasOneRef() const { return refs_.load(std::memory_order_acquire) == 1; }
  int64_t RefCountForTesting() const { return refs_.load(std::memory_order_relaxed); }

 protected:
  virtual ~RefCounted() = default;
  // Called by the thread that dropped the last reference. The default deletes the object.
  virtual void OnLastUnref() { delete this; }
  // Drops a reference without the call of OnLastUnref; true when it was the last one, and the caller must act.
  // For types whose own chains would make the default recurse without bound.
  bool DropRef() const { return refs_.fetch_sub(1, std::memory_order_acq_rel) == 1; }

 private:
  mutable std::atomic<int64_t> refs_{1};
};

template <typename T>
class RefPtr {
 public:
  using element_type = T;
  RefPtr() = default;
  RefPtr(std::nullptr_t) {}  // NOLINT(google-explicit-constructor)
  // Takes a new reference.
  explicit RefPtr(T* p) : p_(p) {
    if (p_) p_->AddRef();
  }
  RefPtr(const RefPtr& o) : RefPtr(o.p_) {}
  RefPtr(RefPtr&& o) noexcept : p_(std::exchange(o.p_, nullptr)) {}
  template <typename U>
  requires std::is_convertible_v<U*, T*> RefPtr(const RefPtr<U>& o) : RefPtr(static_cast<T*>(o.get())) {}  // NOLINT
  template <typename U>
  requires std::is_convertible_v<U*, T*> RefPtr(RefPtr<U>&& o)
  noexcept : p_(o.Leak()) {}  // NOLINT
  RefPtr& operator=(RefPtr o) noexcept {
    std::swap(p_, o.p_);
    return *this;
  }
  ~RefPtr() {
    if (p_) p_->Unref();
  }

  T* get() const { return p_; }
  T* operator->() const { return p_; }
  T& operator*() const { return *p_; }
  explicit operator bool() const { return p_ != nullptr; }
  void reset() { *this = RefPtr(); }
  // Gives up ownership: the caller now holds the reference.
  [[nodiscard]] T* Leak() { return std::exchange(p_, nullptr); }

  template <typename U>
  bool operator==(const RefPtr<U>& o) const {
    return p_ == o.get();
  }
  bool operator==(const T* o) const { return p_ == o; }
  auto operator<=>(const RefPtr& o) const { return p_ <=> o.p_; }

 private:
  T* p_ = nullptr;
};

// Wraps a pointer whose reference the caller owns, without taking another.
template <typename T>
RefPtr<T> AdoptRef(T* p) {
  RefPtr<T> r;
  RefPtr<T> tmp(p);
  if (p) p->Unref();
  r = std::move(tmp);
  return r;
}

template <typename T, typename... Args>
RefPtr<T> MakeRef(Args&&... args) {
  return AdoptRef(new T(std::forward<Args>(args)...));
}

}  // namespace moat

#endif  // MOAT_PLATFORM_BASE_REF_PTR_H_
