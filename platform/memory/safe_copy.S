// The instructions of safe_copy.h that may fault. Each faults at one label and goes on at its fix-up, which the signal
// handler finds by address. System V calling convention.
        .text

// size_t moat_copy(void* dst, const void* src, size_t n): the bytes that were not copied.
        .globl moat_copy, moat_copy_fault, moat_copy_fixup
        .type moat_copy, @function
moat_copy:
        movq %rdx, %rcx
moat_copy_fault:
        rep movsb
moat_copy_fixup:
        movq %rcx, %rax
        ret
        .size moat_copy, . - moat_copy

// size_t moat_zero(void* dst, size_t n): the bytes that were not written.
        .globl moat_zero, moat_zero_fault, moat_zero_fixup
        .type moat_zero, @function
moat_zero:
        movq %rsi, %rcx
        xorl %eax, %eax
moat_zero_fault:
        rep stosb
moat_zero_fixup:
        movq %rcx, %rax
        ret
        .size moat_zero, . - moat_zero

// int moat_load32(const void* p, uint32_t* out): 0, or -1 after a fault.
        .globl moat_load32, moat_load32_fault, moat_load32_fixup
        .type moat_load32, @function
moat_load32:
moat_load32_fault:
        movl (%rdi), %ecx
        movl %ecx, (%rsi)
        xorl %eax, %eax
        ret
moat_load32_fixup:
        movl $-1, %eax
        ret
        .size moat_load32, . - moat_load32

// int moat_cmpxchg32(void* p, uint32_t* expected, uint32_t desired): *expected becomes the value before.
        .globl moat_cmpxchg32, moat_cmpxchg32_fault, moat_cmpxchg32_fixup
        .type moat_cmpxchg32, @function
moat_cmpxchg32:
        movl (%rsi), %eax
moat_cmpxchg32_fault:
        lock cmpxchgl %edx, (%rdi)
        movl %eax, (%rsi)
        xorl %eax, %eax
        ret
moat_cmpxchg32_fixup:
        movl $-1, %eax
        ret
        .size moat_cmpxchg32, . - moat_cmpxchg32

        .section .note.GNU-stack, "", @progbits
