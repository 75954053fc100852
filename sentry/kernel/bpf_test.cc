#include "sentry/kernel/bpf.h"

#include <gtest/gtest.h>

#include <cstddef>

namespace moat {
namespace {

constexpr sock_filter Stmt(int code, uint32_t k) { return {static_cast<uint16_t>(code), 0, 0, k}; }
constexpr sock_filter Jump(int code, uint32_t k, uint8_t jt, uint8_t jf) {
  return {static_cast<uint16_t>(code), jt, jf, k};
}

TEST(Bpf, DecidesByNumberAndArgument) {
  const sock_filter program[] = {
      Stmt(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      Jump(BPF_JMP | BPF_JEQ | BPF_K, 39, 0, 3),
      Stmt(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1]) + 4),
      Jump(BPF_JMP | BPF_JGT | BPF_K, 5, 0, 1),
      Stmt(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1),
      Stmt(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  ASSERT_TRUE(CheckSeccompProgram(program).ok());
  seccomp_data data{};
  data.nr = 39;
  EXPECT_EQ(RunSeccompProgram(program, data), uint32_t{SECCOMP_RET_ALLOW});
  data.args[1] = uint64_t{6} << 32;
  EXPECT_EQ(RunSeccompProgram(program, data), SECCOMP_RET_ERRNO | 1u);
  data.nr = 40;
  EXPECT_EQ(RunSeccompProgram(program, data), uint32_t{SECCOMP_RET_ALLOW});
}

TEST(Bpf, Arithmetic) {
  const sock_filter program[] = {
      Stmt(BPF_LD | BPF_IMM, 7),          Stmt(BPF_ST, 3),
      Stmt(BPF_ALU | BPF_MUL | BPF_K, 6), Stmt(BPF_LDX | BPF_MEM, 3),
      Stmt(BPF_ALU | BPF_SUB | BPF_X, 0), Stmt(BPF_ALU | BPF_NEG, 0),
      Stmt(BPF_MISC | BPF_TAX, 0),        Stmt(BPF_LD | BPF_W | BPF_LEN, 0),
      Stmt(BPF_ALU | BPF_ADD | BPF_X, 0), Stmt(BPF_RET | BPF_A, 0),
  };
  ASSERT_TRUE(CheckSeccompProgram(program).ok());
  EXPECT_EQ(RunSeccompProgram(program, {}), sizeof(seccomp_data) - 35);
}

TEST(Bpf, BadProgramsAreRefused) {
  auto refused = [](std::initializer_list<sock_filter> p) {
    return !CheckSeccompProgram(std::span<const sock_filter>(p.begin(), p.size())).ok();
  };
  const sock_filter ret = Stmt(BPF_RET | BPF_K, 0);
  EXPECT_TRUE(refused({}));
  EXPECT_TRUE(refused({Stmt(BPF_LD | BPF_IMM, 1)}));                                  // no return
  EXPECT_TRUE(refused({Stmt(BPF_LD | BPF_W | BPF_ABS, sizeof(seccomp_data)), ret}));  // past the data
  EXPECT_TRUE(refused({Stmt(BPF_LD | BPF_W | BPF_ABS, 2), ret}));                     // not aligned
  EXPECT_TRUE(refused({Stmt(BPF_JMP | BPF_JA, 1), ret}));                             // out of the program
  EXPECT_TRUE(refused({Jump(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 5), ret}));
  EXPECT_TRUE(refused({Stmt(BPF_ALU | BPF_DIV | BPF_K, 0), ret}));
  EXPECT_TRUE(refused({Stmt(BPF_LD | BPF_MEM, 16), ret}));
  EXPECT_TRUE(refused({Stmt(BPF_LD | BPF_MEM, 2), ret}));  // never written
  EXPECT_TRUE(refused({Stmt(BPF_LD | BPF_B | BPF_ABS, 0), ret}));
  EXPECT_FALSE(refused({Stmt(BPF_ST, 2), Stmt(BPF_LD | BPF_MEM, 2), ret}));
}

}  // namespace
}  // namespace moat
