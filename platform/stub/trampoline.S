// The only code of ours in a stub. Position independent, without stack or data: all state is in registers that the
// sentry has set. Guest code may jump here too; its `syscall` instructions are then the guest's own, emulated as any
// other (the platform lets the real thing through only when it has set the registers itself).
        .text
        .balign 64
        .globl moat_trampoline_start
moat_trampoline_start:

        .globl moat_trampoline_syscall
moat_trampoline_syscall:
        syscall
        int3

        .globl moat_trampoline_batch
moat_trampoline_batch:
        xorl %r13d, %r13d
1:      testq %r12, %r12
        jz 3f
        movq 0(%rbx), %rax
        movq 8(%rbx), %rdi
        movq 16(%rbx), %rsi
        movq 24(%rbx), %rdx
        movq 32(%rbx), %r10
        movq 40(%rbx), %r8
        movq 48(%rbx), %r9
        syscall
        cmpq $-4095, %rax
        jb 2f
        testq %r13, %r13
        cmovzq %rax, %r13
2:      addq $56, %rbx
        decq %r12
        jmp 1b
3:      int3

        .globl moat_trampoline_clone_thread
moat_trampoline_clone_thread:
        syscall
        testq %rax, %rax
        jz moat_trampoline_idle
        int3

        .globl moat_trampoline_clone_process
moat_trampoline_clone_process:
        syscall
        testq %rax, %rax
        jz 1f
        int3
1:      movl $157, %eax                 // prctl(PR_SET_PDEATHSIG, SIGKILL): a stub does not outlive the zygote
        movl $1, %edi
        movl $9, %esi
        syscall
        movl $110, %eax                 // getppid(): a zygote that died before the prctl would go unnoticed
        syscall
        cmpq %r14, %rax
        jne moat_trampoline_exit
        movl $9, %eax                   // mmap(kCommands, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, r13, r12)
        movabsq $0x7ffffffe1000, %rdi
        movl $4096, %esi
        movl $1, %edx
        movl $0x11, %r10d
        movq %r13, %r8
        movq %r12, %r9
        syscall
        cmpq $-4095, %rax
        jae moat_trampoline_exit
        // fall through

        .globl moat_trampoline_idle
moat_trampoline_idle:
        movl $34, %eax                  // pause()
        syscall
        jmp moat_trampoline_idle
        .globl moat_trampoline_idle_end
moat_trampoline_idle_end:

        .globl moat_trampoline_exit
moat_trampoline_exit:
        movl $60, %eax                  // exit(0)
        xorl %edi, %edi
        syscall
        ud2

// Runs in a copy of this page that may be anywhere: the stack of the process may lie where kText belongs.
        .globl moat_trampoline_zygote
moat_trampoline_zygote:
        leaq moat_trampoline_start(%rip), %rbx
        movl $11, %eax                  // munmap(0, here)
        xorl %edi, %edi
        movq %rbx, %rsi
        syscall
        movl $11, %eax                  // munmap(here + 4096, kUserEnd - here - 4096)
        leaq 4096(%rbx), %rdi
        movabsq $0x7ffffffff000, %rsi
        subq %rdi, %rsi
        syscall
        movl $9, %eax                   // mmap(kText, 4096, read and write, private anonymous fixed)
        movabsq $0x7ffffffe0000, %rdi
        movl $4096, %esi
        movl $3, %edx
        movl $0x32, %r10d
        movq $-1, %r8
        xorl %r9d, %r9d
        syscall
        movabsq $0x7ffffffe0000, %rdi
        movq %rbx, %rsi
        movl $4096, %ecx
        rep movsb
        movl $10, %eax                  // mprotect(kText, 4096, read and execute)
        movabsq $0x7ffffffe0000, %rdi
        movl $4096, %esi
        movl $5, %edx
        syscall
        movabsq $(0x7ffffffe0000 + moat_trampoline_moved - moat_trampoline_start), %rax
        jmpq *%rax
moat_trampoline_moved:
        movl $11, %eax                  // munmap(the copy, 4096)
        movq %rbx, %rdi
        movl $4096, %esi
        syscall
        jmp moat_trampoline_idle

        .globl moat_trampoline_end
moat_trampoline_end:
        .section .note.GNU-stack, "", @progbits
