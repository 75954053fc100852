// Assertions on the result of a C library call or system call wrapper: -1 with errno, or success.
//
//   ASSERT_OK(fd = open(path, O_RDONLY));
//   EXPECT_FAIL(close(-1), EBADF);
#ifndef MOAT_TESTS_GUEST_SUPPORT_SYSCALL_RESULT_H_
#define MOAT_TESTS_GUEST_SUPPORT_SYSCALL_RESULT_H_

#include <errno.h>
#include <gtest/gtest.h>

namespace moat::guest {

// Success is any value but -1; the failure message names errno.
testing::AssertionResult SyscallOk(const char* text, long long result);
// Success is -1 with errno `expected`.
testing::AssertionResult SyscallFails(const char* text, const char* expected_text, long long result, int expected);
// The name of an errno value, e.g. "ENOENT".
const char* ErrnoName(int error);

}  // namespace moat::guest

#define EXPECT_OK(call) EXPECT_PRED_FORMAT1(::moat::guest::SyscallOk, (call))
#define ASSERT_OK(call) ASSERT_PRED_FORMAT1(::moat::guest::SyscallOk, (call))
#define EXPECT_FAIL(call, error) EXPECT_PRED_FORMAT2(::moat::guest::SyscallFails, (call), error)
#define ASSERT_FAIL(call, error) ASSERT_PRED_FORMAT2(::moat::guest::SyscallFails, (call), error)

#endif  // MOAT_TESTS_GUEST_SUPPORT_SYSCALL_RESULT_H_
