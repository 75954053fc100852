#include "tests/guest/support/syscall_result.h"

#include <string.h>

namespace moat::guest {

const char* ErrnoName(int error) {
  const char* name = strerrorname_np(error);
  return name != nullptr ? name : "no known errno";
}

testing::AssertionResult SyscallOk(const char* text, long long result) {
  const int error = errno;
  if (result != -1) return testing::AssertionSuccess();
  return testing::AssertionFailure() << text << " failed with " << ErrnoName(error) << " (" << error << ")";
}

testing::AssertionResult SyscallFails(const char* text, const char* expected_text, long long result, int expected) {
  const int error = errno;
  if (result == -1 && error == expected) return testing::AssertionSuccess();
  if (result != -1) {
    return testing::AssertionFailure() << text << " returned " << result << ", expected " << ErrnoName(expected);
  }
  return testing::AssertionFailure() << text << " failed with " << ErrnoName(error) << ", expected "
                                     << ErrnoName(expected);
}

}  // namespace moat::guest
