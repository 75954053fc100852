// Mapping owns a memory mapping of the test process; unmapped when the object dies.
#ifndef MOAT_TESTS_GUEST_SUPPORT_MAPPING_H_
#define MOAT_TESTS_GUEST_SUPPORT_MAPPING_H_

#include <stddef.h>
#include <sys/mman.h>

#include <utility>

#include "tests/guest/support/syscall_result.h"

namespace moat::guest {

inline constexpr size_t kPage = 4096;

class Mapping {
 public:
  // Anonymous private memory by default. A failed mmap is a test failure and leaves data() == nullptr.
  explicit Mapping(size_t size, int prot = PROT_READ | PROT_WRITE, int flags = MAP_PRIVATE | MAP_ANONYMOUS, int fd = -1,
                   off_t offset = 0)
      : size_(size) {
    void* data = mmap(nullptr, size, prot, flags, fd, offset);
    EXPECT_NE(data, MAP_FAILED) << ErrnoName(errno);
    data_ = data == MAP_FAILED ? nullptr : static_cast<char*>(data);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (data_ != nullptr) munmap(data_, size_);
  }

  char* data() const { return data_; }
  char* page(size_t n) const { return data_ + n * kPage; }
  size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  // Hands the memory to the caller.
  char* Release() { return std::exchange(data_, nullptr); }

 private:
  char* data_;
  size_t size_;
};

// An address range that is mapped nowhere, hence a pointer that every call must refuse with EFAULT.
inline char* BadPointer() { return reinterpret_cast<char*>(8); }

}  // namespace moat::guest

#endif  // MOAT_TESTS_GUEST_SUPPORT_MAPPING_H_
