#include "sentry/kernel/bpf.h"

#include <cstring>

namespace moat {

namespace {

bool KnownInstruction(const sock_filter& i) {
  switch (i.code) {
    case BPF_LD | BPF_W | BPF_ABS:
      return i.k < sizeof(seccomp_data) && i.k % 4 == 0;
    case BPF_LD | BPF_W | BPF_LEN:
    case BPF_LDX | BPF_W | BPF_LEN:
    case BPF_LD | BPF_IMM:
    case BPF_LDX | BPF_IMM:
    case BPF_MISC | BPF_TAX:
    case BPF_MISC | BPF_TXA:
    case BPF_RET | BPF_K:
    case BPF_RET | BPF_A:
    case BPF_JMP | BPF_JA:
    case BPF_JMP | BPF_JEQ | BPF_K:
    case BPF_JMP | BPF_JEQ | BPF_X:
    case BPF_JMP | BPF_JGT | BPF_K:
    case BPF_JMP | BPF_JGT | BPF_X:
    case BPF_JMP | BPF_JGE | BPF_K:
    case BPF_JMP | BPF_JGE | BPF_X:
    case BPF_JMP | BPF_JSET | BPF_K:
    case BPF_JMP | BPF_JSET | BPF_X:
    case BPF_ALU | BPF_ADD | BPF_K:
    case BPF_ALU | BPF_ADD | BPF_X:
    case BPF_ALU | BPF_SUB | BPF_K:
    case BPF_ALU | BPF_SUB | BPF_X:
    case BPF_ALU | BPF_MUL | BPF_K:
    case BPF_ALU | BPF_MUL | BPF_X:
    case BPF_ALU | BPF_DIV | BPF_X:
    case BPF_ALU | BPF_AND | BPF_K:
    case BPF_ALU | BPF_AND | BPF_X:
    case BPF_ALU | BPF_OR | BPF_K:
    case BPF_ALU | BPF_OR | BPF_X:
    case BPF_ALU | BPF_XOR | BPF_K:
    case BPF_ALU | BPF_XOR | BPF_X:
    case BPF_ALU | BPF_LSH | BPF_X:
    case BPF_ALU | BPF_RSH | BPF_X:
    case BPF_ALU | BPF_NEG:
      return true;
    case BPF_ALU | BPF_DIV | BPF_K:
      return i.k != 0;
    case BPF_ALU | BPF_LSH | BPF_K:
    case BPF_ALU | BPF_RSH | BPF_K:
      return i.k < 32;
    case BPF_LD | BPF_MEM:
    case BPF_LDX | BPF_MEM:
    case BPF_ST:
    case BPF_STX:
      return i.k < BPF_MEMWORDS;
    default:
      return false;
  }
}

uint32_t Alu(uint32_t op, uint32_t a, uint32_t b) {
  switch (op) {
    case BPF_ADD:
      return a + b;
    case BPF_SUB:
      return a - b;
    case BPF_MUL:
      return a * b;
    case BPF_DIV:
      return b == 0 ? 0 : a / b;
    case BPF_AND:
      return a & b;
    case BPF_OR:
      return a | b;
    case BPF_XOR:
      return a ^ b;
    case BPF_LSH:
      return a << (b & 31);
    case BPF_RSH:
      return a >> (b & 31);
    default:  // BPF_NEG
      return -a;
  }
}

bool Jump(uint32_t op, uint32_t a, uint32_t b) {
  switch (op) {
    case BPF_JEQ:
      return a == b;
    case BPF_JGT:
      return a > b;
    case BPF_JGE:
      return a >= b;
    default:  // BPF_JSET
      return (a & b) != 0;
  }
}

}  // namespace

Result<void> CheckSeccompProgram(std::span<const sock_filter> program) {
  if (program.empty() || program.size() > BPF_MAXINSNS) return kEINVAL;
  // Which words of the scratch memory every path has written before an instruction: reading another one would leak.
  std::vector<uint16_t> written(program.size() + 1, 0xffff);
  written[0] = 0;
  uint16_t now = 0;
  for (size_t i = 0; i < program.size(); ++i) {
    const sock_filter& ins = program[i];
    if (!KnownInstruction(ins)) return kEINVAL;
    now = i == 0 ? 0 : written[i];
    const size_t left = program.size() - i - 1;
    auto reach = [&](size_t offset) { written[i + 1 + offset] &= now; };
    switch (BPF_CLASS(ins.code)) {
      case BPF_RET:
        continue;
      case BPF_JMP:
        if (BPF_OP(ins.code) == BPF_JA) {
          if (ins.k >= left) return kEINVAL;
          reach(ins.k);
        } else {
          if (ins.jt >= left || ins.jf >= left) return kEINVAL;
          reach(ins.jt);
          reach(ins.jf);
        }
        continue;
      case BPF_ST:
      case BPF_STX:
        now |= static_cast<uint16_t>(1u << ins.k);
        break;
      case BPF_LD:
      case BPF_LDX:
        if (BPF_MODE(ins.code) == BPF_MEM && (now >> ins.k & 1) == 0) return kEINVAL;
        break;
      default:
        break;
    }
    reach(0);
  }
  return BPF_CLASS(program.back().code) == BPF_RET ? Result<void>() : kEINVAL;
}

uint32_t RunSeccompProgram(std::span<const sock_filter> program, const seccomp_data& data) {
  uint32_t a = 0, x = 0;
  uint32_t memory[BPF_MEMWORDS] = {};
  for (size_t pc = 0; pc < program.size(); ++pc) {
    const sock_filter& i = program[pc];
    const uint32_t operand = BPF_SRC(i.code) == BPF_X ? x : i.k;
    switch (BPF_CLASS(i.code)) {
      case BPF_LD:
        if (BPF_MODE(i.code) == BPF_ABS) {
          memcpy(&a, reinterpret_cast<const char*>(&data) + i.k, sizeof a);
        } else {
          a = BPF_MODE(i.code) == BPF_MEM ? memory[i.k] : BPF_MODE(i.code) == BPF_LEN ? sizeof data : i.k;
        }
        break;
      case BPF_LDX:
        x = BPF_MODE(i.code) == BPF_MEM ? memory[i.k] : BPF_MODE(i.code) == BPF_LEN ? sizeof data : i.k;
        break;
      case BPF_ST:
        memory[i.k] = a;
        break;
      case BPF_STX:
        memory[i.k] = x;
        break;
      case BPF_ALU:
        // Division by a zero in X ends the filter with 0 (kill), as the kernel's interpreter does.
        if (BPF_OP(i.code) == BPF_DIV && operand == 0) return SECCOMP_RET_KILL_THREAD;
        a = Alu(BPF_OP(i.code), a, operand);
        break;
      case BPF_JMP:
        if (BPF_OP(i.code) == BPF_JA) {
          pc += i.k;
        } else {
          pc += Jump(BPF_OP(i.code), a, operand) ? i.jt : i.jf;
        }
        break;
      case BPF_RET:
        return BPF_RVAL(i.code) == BPF_A ? a : i.k;
      default:  // BPF_MISC
        if (BPF_MISCOP(i.code) == BPF_TAX) {
          x = a;
        } else {
          a = x;
        }
        break;
    }
  }
  return SECCOMP_RET_KILL_PROCESS;  // not reached: a checked program ends with a return
}

}  // namespace moat
