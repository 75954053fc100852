// The only code of ours in a stub. It keeps all state in registers and in pages that guest code can at most read,
// but for a thread's own area, whose words can only harm that guest. Guest code may jump to any instruction here; its
// `syscall` instructions are then subject to the guest thread's own filter (filters.cc), which knows three addresses:
// systrap_enter_ip, systrap_sigreturn_ip and systrap_wake_ip.
//
// Threads of a stub: the first one makes the others (maker); the agent carries out the sentry's memory operations;
// the rest run guest code. Maker and agent never run guest code and hold nothing in guest-writable memory.
#include "platform/systrap/abi.h"

#define SYS_mmap 9
#define SYS_munmap 11
#define SYS_mprotect 10
#define SYS_rt_sigreturn 15
#define SYS_clone 56
#define SYS_exit 60
#define SYS_getppid 110
#define SYS_sigaltstack 131
#define SYS_prctl 157
#define SYS_futex 202
#define SYS_seccomp 317
#define SYS_rseq 334

#define SIGSEGV 11
#define SIGSYS 31
#define SEGV_ACCERR 2
// struct siginfo, struct ucontext: uc_mcontext.err, a bit of it
#define SIGINFO_CODE 8
#define SIGINFO_ADDRESS 16
#define UCONTEXT_ERROR 192
#define PAGE_FAULT_WRITE 2
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
// CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM
#define THREAD_FLAGS 0x50f00
// CLONE_FILES | SIGCHLD
#define PROCESS_FLAGS 0x411
// NEW_LISTENER | WAIT_KILLABLE_RECV
#define LISTENER_FLAGS 0x28

        .text
        .balign 64
        .globl systrap_start
systrap_start:

// Waits until the call in the mailbox with the state word `state` is answered: looks there for a while, then sleeps in
// the call before `sleep_ip`. Uses rax, rcx, rdx and what `syscall` does.
        .macro AWAIT_ANSWER state, sleep_ip
2:      rdtsc
        movl %eax, %ecx
3:      cmpl $MAILBOX_ANSWERED, \state
        je 4f
        cmpl $(MAILBOX_TAKEN + MAILBOX_LONG), \state
        je 5f
        pause
        rdtsc
        subl %ecx, %eax
        cmpl $MAILBOX_PATIENCE, %eax
        jb 3b
5:      movl \state, %eax
        cmpl $MAILBOX_ANSWERED, %eax
        je 4f
        movl %eax, %ecx
        orl $MAILBOX_SLEEPING, %ecx
        lock cmpxchgl %ecx, \state
        jne 2b
        movl $SYSTRAP_SLEEP, %eax
        syscall
        .globl \sleep_ip
\sleep_ip:
        jmp 2b
4:
        .endm

// --- guest threads -----------------------------------------------------------------------------------------------

// Handler of every signal that may hit guest code: faults, SIGSYS, the sentry's kick. On the alternate stack, which
// is the end of this thread's area; all signals are blocked. rdi: signo, rsi: siginfo, rdx: ucontext.
        .globl systrap_handler
systrap_handler:
        movq %rsp, %r15
        andq $-SYSTRAP_AREA_SIZE, %r15
        rdfsbase %r10
        rdgsbase %r8
// A store to a page that may be read is nearly always copy-on-write. The handler asks for the mapping that the sentry
// most likely orders for that: then the host carries out this very call, and the agent is spared.
        cmpl $SIGSEGV, %edi
        jne systrap_post_frame
        cmpl $SEGV_ACCERR, SIGINFO_CODE(%rsi)
        jne systrap_enter
        testb $PAGE_FAULT_WRITE, UCONTEXT_ERROR(%rdx)
        jz systrap_enter
        movq AREA_COPY_OFFSET(%r15), %r9
        testq %r9, %r9
        js systrap_enter
        movq %rsi, AREA_FAULT_INFO(%r15)
        movq %rdx, AREA_FAULT_FRAME(%r15)
        movq %r10, AREA_FAULT_FS(%r15)
        movq %r8, AREA_FAULT_GS(%r15)
        movq SIGINFO_ADDRESS(%rsi), %rdi
        andq $-4096, %rdi
        movl $4096, %esi
        movl $3, %edx                   // PROT_READ | PROT_WRITE
        movl $0x4011, %r10d             // MAP_SHARED | MAP_FIXED | MAP_NORESERVE
        movl AREA_COPY_FD(%r15), %r8d
        movl $SYS_mmap, %eax
        syscall
        .globl systrap_copy_ip
systrap_copy_ip:
        movl $SIGSEGV, %edi
        movq AREA_FAULT_INFO(%r15), %rsi
        movq AREA_FAULT_FRAME(%r15), %rdx
        movq AREA_FAULT_FS(%r15), %r10
        movq AREA_FAULT_GS(%r15), %r8
        cmpq $4096, %rax
        jb systrap_enter_ip             // an answer, as to Enter
        cmpq $-4095, %rax
        jb systrap_resume               // an address: mapped
        jmp systrap_enter

// A call that comes by way of the handler goes to the mailbox where the sentry looks there, as those of patched sites
// do: the arguments of Enter in place of the call's. Its answers are Enter's.
systrap_post_frame:
        cmpl $SIGSYS, %edi
        jne systrap_enter
        cmpl $1, AREA_LISTENING(%r15)
        jne systrap_enter
        movl $MAILBOX_FRAME, AREA_SITE(%r15)
        movq %rdi, AREA_ARGS(%r15)
        movq %rsi, AREA_ARGS + 8(%r15)
        movq %rdx, AREA_ARGS + 16(%r15)
        movq %r10, AREA_ARGS + 24(%r15)
        movq %r8, AREA_ARGS + 32(%r15)
        movq %rdx, %rbx                 // rdtsc uses it
        movl $MAILBOX_CALL, %eax
        xchgl %eax, AREA_STATE(%r15)
        cmpl $1, AREA_LISTENING(%r15)
        je 2f
        movl $MAILBOX_CALL, %eax
        xorl %ecx, %ecx
        lock cmpxchgl %ecx, AREA_STATE(%r15)
        je systrap_enter
2:      AWAIT_ANSWER AREA_STATE(%r15), systrap_frame_sleep_ip
        movq %rbx, %rdx
        movq AREA_RESULT(%r15), %rax
        movl $MAILBOX_EMPTY, AREA_STATE(%r15)
        jmp systrap_enter_ip
// The sentry is told where the thread's registers are, and changes them there before it answers.
systrap_enter:
        movl $SYSTRAP_ENTER, %eax
        syscall
        .globl systrap_enter_ip
systrap_enter_ip:
        cmpl $SYSTRAP_RESUME, %eax
        jne 1f
systrap_resume:
        movq AREA_FS_BASE(%r15), %rax
        wrfsbase %rax
        movq AREA_GS_BASE(%r15), %rax
        wrgsbase %rax
        movq AREA_FRAME(%r15), %rsp
        movl $SYS_rt_sigreturn, %eax
        syscall
        .globl systrap_sigreturn_ip
systrap_sigreturn_ip:
        ud2
1:      cmpl $SYSTRAP_AGAIN, %eax
        je systrap_enter
        cmpl $SYSTRAP_RSEQ, %eax
        jne systrap_exit
        movq %rdi, %rbx                 // the arguments of Enter
        movq %rsi, %rbp
        movq %rdx, %r12
        movq %r10, %r13
        movq AREA_RSEQ(%r15), %rdi
        movl $32, %esi
        movl AREA_RSEQ_FLAGS(%r15), %edx
        movl AREA_RSEQ_SIGNATURE(%r15), %r10d
        movl $SYS_rseq, %eax
        syscall
        movq %rax, %r9
        movq %rbx, %rdi
        movq %rbp, %rsi
        movq %r12, %rdx
        movq %r13, %r10
        jmp systrap_enter

        .globl systrap_exit
systrap_exit:
        movl $SYS_exit, %eax
        xorl %edi, %edi
        syscall
        ud2

// A new guest thread. r15: its area. From its filter on it can make no host call but by the sentry's leave.
systrap_guest_start:
        movl $SYS_sigaltstack, %eax
        leaq AREA_STACK_T(%r15), %rdi
        xorl %esi, %esi
        syscall
        movl $SYS_seccomp, %eax
        movl $1, %edi
        movl $LISTENER_FLAGS, %esi
        movabsq $SYSTRAP_FILTERS, %rdx
        syscall
        // Zero says "not yet": the descriptor is told as its number plus one, an error as it is.
        testl %eax, %eax
        js 1f
        incl %eax
1:      movl %eax, AREA_LISTENER(%r15)
        movl %eax, %ebx
        movl $SYS_futex, %eax
        leaq AREA_LISTENER(%r15), %rdi
        movl $FUTEX_WAKE, %esi
        movl $1, %edx
        syscall
        .globl systrap_wake_ip
systrap_wake_ip:
        testl %ebx, %ebx
        js systrap_exit
        xorl %edi, %edi
        xorl %esi, %esi
        xorl %edx, %edx
        xorl %r10d, %r10d
        xorl %r8d, %r8d
        jmp systrap_enter

// --- patched call sites ---------------------------------------------------------------------------------------------

// From a site's thunk. rax: the call's number, ecx: eight times the site; all else is the guest's, flags and red zone
// included. Where only the caller is concerned, the answer comes from its area. call_sites.cc knows how to take a thread
// back from any instruction here: up to systrap_call_flags the flags are in place, then in ax.
        .macro ANSWER number, word
        cmpl $\number, %r11d
        jne 1f
        addb $0x7f, %al
        sahf
        movl %gs:\word, %eax
        jmpq *SYSTRAP_RETURNS(%rcx)
1:
        .endm

        .globl systrap_call
systrap_call:
        movq %rax, %r11
        lahf
        seto %al
        .globl systrap_call_flags
systrap_call_flags:
        cmpl $AREA_MAGIC_VALUE, %gs:AREA_MAGIC
        jne systrap_call_slow
        cmpl $0, %gs:AREA_ANSWERS
        je systrap_call_post
        ANSWER 39, AREA_TGID
        ANSWER 186, AREA_TID
        ANSWER 110, AREA_PPID
        ANSWER 102, AREA_UID
        ANSWER 107, AREA_EUID
        ANSWER 104, AREA_GID
        ANSWER 108, AREA_EGID
        // When the sentry looks at the mailbox from another CPU.
systrap_call_post:
        cmpl $1, %gs:AREA_LISTENING
        jne systrap_call_slow
        movl %eax, %gs:AREA_FLAGS
        movl %r11d, %gs:AREA_NUMBER
        movl %ecx, %gs:AREA_SITE
        movq %rdi, %gs:AREA_ARGS
        movq %rsi, %gs:AREA_ARGS + 8
        movq %rdx, %gs:AREA_ARGS + 16
        movq %r10, %gs:AREA_ARGS + 24
        movq %r8, %gs:AREA_ARGS + 32
        movq %r9, %gs:AREA_ARGS + 40
        movl $MAILBOX_CALL, %eax
        .globl systrap_mailbox_posting
systrap_mailbox_posting:
        xchgl %eax, %gs:AREA_STATE
        .globl systrap_mailbox
systrap_mailbox:
        // From here on the registers are in the mailbox. Who has stopped looking meanwhile will not see the call.
        cmpl $1, %gs:AREA_LISTENING
        je 2f
        movl $MAILBOX_CALL, %eax
        xorl %ecx, %ecx
        lock cmpxchgl %ecx, %gs:AREA_STATE
        jne 2f
        movl %gs:AREA_FLAGS, %eax
        movl %gs:AREA_SITE, %ecx
        movl %gs:AREA_NUMBER, %r11d
        jmp systrap_call_slow
2:      AWAIT_ANSWER %gs:AREA_STATE, systrap_sleep_ip
        movq %gs:AREA_ARGS + 16, %rdx
        movl %gs:AREA_FLAGS, %eax
        movl %gs:AREA_SITE, %ecx
        movq %gs:AREA_RESULT, %r11
        movl $MAILBOX_EMPTY, %gs:AREA_STATE
        .globl systrap_mailbox_answered
systrap_mailbox_answered:
        addb $0x7f, %al
        sahf
        movq %r11, %rax
        jmpq *SYSTRAP_RETURNS(%rcx)
        .globl systrap_call_slow
systrap_call_slow:
        addb $0x7f, %al
        sahf
        movq %r11, %rax
        .globl systrap_call_restored
systrap_call_restored:
        movabsq $(SYSTRAP_THUNKS + THUNK_CALL), %r11
        leaq (%r11, %rcx, 4), %r11
        jmpq *%r11
        .globl systrap_call_end
systrap_call_end:

// From a cpuid site's thunk. rax: the leaf, rcx: the subleaf, rbx: eight times the site; rdx is free, all else is the
// guest's, flags and red zone included. Whoever is interrupted here finds the instruction done (cpuid_site.cc).
        .globl systrap_cpuid
systrap_cpuid:
        movq %rax, %rdx
        lahf
        seto %al
        .globl systrap_cpuid_flags
systrap_cpuid_flags:
        cmpl $AREA_MAGIC_VALUE, %gs:AREA_MAGIC
        jne systrap_cpuid_slow
        movq %rbx, %gs:AREA_CPUID_SITE
        .globl systrap_cpuid_stored
systrap_cpuid_stored:
        movq SYSTRAP_RETURNS(%rbx), %rbx
        movq %rbx, %gs:AREA_CPUID_RETURN
        movl $CPUID_ENTRIES, %ebx
1:      cmpl CPUID_END, %ebx
        jae 4f
        cmpl %edx, CPUID_LEAF(%rbx)
        jne 2f
        cmpl $0, CPUID_ANY(%rbx)
        jne 3f
        cmpl %ecx, CPUID_SUBLEAF(%rbx)
        je 3f
2:      addl $CPUID_ENTRY, %ebx
        jmp 1b
3:      addb $0x7f, %al
        sahf
        .globl systrap_cpuid_final
systrap_cpuid_final:
        movl CPUID_EAX(%rbx), %eax
        movl CPUID_ECX(%rbx), %ecx
        movl CPUID_EDX(%rbx), %edx
        movl CPUID_EBX(%rbx), %ebx
        .globl systrap_cpuid_last
systrap_cpuid_last:
        jmpq *%gs:AREA_CPUID_RETURN
4:      movq %gs:AREA_CPUID_SITE, %rbx
        .globl systrap_cpuid_slow
systrap_cpuid_slow:
        addb $0x7f, %al
        sahf
        movq %rdx, %rax
        .globl systrap_cpuid_restored
systrap_cpuid_restored:
        movabsq $(SYSTRAP_THUNKS + THUNK_CPUID), %rdx
        leaq (%rdx, %rbx, 4), %rdx
        jmpq *%rdx
        .globl systrap_cpuid_end
systrap_cpuid_end:

// --- the agent ---------------------------------------------------------------------------------------------------

// Runs before any guest code: what it writes into the area can still be trusted.
systrap_agent_start:
        movl $SYS_seccomp, %eax
        movl $1, %edi
        movl $LISTENER_FLAGS, %esi
        movabsq $(SYSTRAP_FILTERS + 16), %rdx
        syscall
        testl %eax, %eax
        js 1f
        incl %eax
1:      movl %eax, AREA_AGENT(%r15)
        movl %eax, %ebx
        movl $SYS_futex, %eax
        leaq AREA_AGENT(%r15), %rdi
        movl $FUTEX_WAKE, %esi
        movl $0x7fffffff, %edx          // the sentry and the maker wait
        syscall
        testl %ebx, %ebx
        js systrap_exit
        xorl %r13d, %r13d
// Reports the first error of the last batch; the answer is the number of commands of the next one.
systrap_agent:
        movl $SYSTRAP_ENTER, %eax
        movq %r13, %rdi
        syscall
        movq %rax, %r12
        movabsq $SYSTRAP_COMMANDS, %rbx
        xorl %r13d, %r13d
1:      testq %r12, %r12
        jz systrap_agent
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
2:      addq $COMMAND_SIZE, %rbx
        decq %r12
        jmp 1b

// --- the maker: a stub's first thread ----------------------------------------------------------------------------

// In a new process that is a copy of the zygote. rbp: the mailbox, r14: the zygote's pid.
systrap_stub_start:
        movl $SYS_prctl, %eax           // prctl(PR_SET_PDEATHSIG, SIGKILL): a stub does not outlive the zygote
        movl $1, %edi
        movl $9, %esi
        syscall
        movl $SYS_getppid, %eax         // a zygote that died before the prctl would go unnoticed
        syscall
        cmpq %r14, %rax
        jne systrap_exit
        movl $SYS_mmap, %eax            // the command page, shared, read only
        movabsq $SYSTRAP_COMMANDS, %rdi
        movl $4096, %esi
        movl $1, %edx
        movl $0x11, %r10d
        movl MAILBOX_COMMANDS_FD(%rbp), %r8d
        movq MAILBOX_PAGE(%rbp), %r9
        syscall
        cmpq $-4095, %rax
        jae systrap_exit
        movq MAILBOX_AREA(%rbp), %r9    // the first guest thread's area, shared, read and write
        movabsq $SYSTRAP_AREAS, %r15
        addq %r9, %r15
        movl $SYS_mmap, %eax
        movq %r15, %rdi
        movl $SYSTRAP_AREA_SIZE, %esi
        movl $3, %edx
        movl $0x11, %r10d
        movl MAILBOX_AREAS_FD(%rbp), %r8d
        syscall
        cmpq $-4095, %rax
        jae systrap_exit
        movl $SYS_munmap, %eax
        movq %rbp, %rdi
        movl $4096, %esi
        syscall

        movl $SYS_clone, %eax
        movl $THREAD_FLAGS, %edi
        xorl %esi, %esi
        xorl %edx, %edx
        xorl %r10d, %r10d
        xorl %r8d, %r8d
        syscall
        testq %rax, %rax
        jz systrap_agent_start
        js 3f
2:      cmpl $0, AREA_AGENT(%r15)
        jne 4f
        movl $SYS_futex, %eax
        leaq AREA_AGENT(%r15), %rdi
        movl $FUTEX_WAIT, %esi
        xorl %edx, %edx
        xorl %r10d, %r10d
        syscall
        jmp 2b
3:      movl %eax, AREA_AGENT(%r15)
4:      xorl %ebx, %ebx
        jmp systrap_make_thread

// Waits for the order to make one more guest thread. ebx: the last order.
systrap_maker:
        movabsq $SYSTRAP_COMMANDS, %rbp
        movl COMMANDS_THREAD_ORDER(%rbp), %eax
        cmpl %ebx, %eax
        jne 1f
        movl $SYS_futex, %eax
        leaq COMMANDS_THREAD_ORDER(%rbp), %rdi
        movl $FUTEX_WAIT, %esi
        movl %ebx, %edx
        xorl %r10d, %r10d
        syscall
        jmp systrap_maker
1:      movl %eax, %ebx
        movq COMMANDS_THREAD_AREA(%rbp), %r15
systrap_make_thread:
        movl $SYS_clone, %eax
        movl $THREAD_FLAGS, %edi
        xorl %esi, %esi
        xorl %edx, %edx
        xorl %r10d, %r10d
        xorl %r8d, %r8d
        syscall
        testq %rax, %rax
        jz systrap_guest_start
        jns systrap_maker
        movl %eax, AREA_LISTENER(%r15)
        movl $SYS_futex, %eax
        leaq AREA_LISTENER(%r15), %rdi
        movl $FUTEX_WAKE, %esi
        movl $1, %edx
        syscall
        jmp systrap_maker

// --- the zygote --------------------------------------------------------------------------------------------------

// Runs in a copy of this image that may be anywhere: the stack of the process may lie where SYSTRAP_TEXT belongs.
// rdi: descriptor of the mailbox's file, rsi: offset of the mailbox in it.
        .globl systrap_zygote
systrap_zygote:
        movq %rdi, %r12
        movq %rsi, %r13
        leaq systrap_start(%rip), %rbx
        movl $SYS_munmap, %eax          // everything below this copy
        xorl %edi, %edi
        movq %rbx, %rsi
        syscall
        movl $SYS_munmap, %eax          // and above
        leaq SYSTRAP_IMAGE_SIZE(%rbx), %rdi
        movabsq $SYSTRAP_USER_END, %rsi
        subq %rdi, %rsi
        syscall
        movl $SYS_mmap, %eax
        movabsq $SYSTRAP_TEXT, %rdi
        movl $SYSTRAP_IMAGE_SIZE, %esi
        movl $3, %edx
        movl $0x32, %r10d
        movq $-1, %r8
        xorl %r9d, %r9d
        syscall
        movabsq $SYSTRAP_TEXT, %rdi
        movq %rbx, %rsi
        movl $SYSTRAP_IMAGE_SIZE, %ecx
        rep movsb
        movl $SYS_mprotect, %eax
        movabsq $SYSTRAP_TEXT, %rdi
        movl $SYSTRAP_IMAGE_SIZE, %esi
        movl $5, %edx
        syscall
        movabsq $(SYSTRAP_TEXT + systrap_zygote_moved - systrap_start), %rax
        jmpq *%rax
systrap_zygote_moved:
        movl $SYS_munmap, %eax
        movq %rbx, %rdi
        movl $SYSTRAP_IMAGE_SIZE, %esi
        syscall
        movl $SYS_mmap, %eax            // the mailbox: this process is trusted with writing it
        movabsq $SYSTRAP_MAILBOX, %rdi
        movl $4096, %esi
        movl $3, %edx
        movl $0x11, %r10d
        movq %r12, %r8
        movq %r13, %r9
        syscall
        cmpq $-4095, %rax
        jae systrap_exit
        movq %rax, %rbp
        xorl %ebx, %ebx
// Waits for the order to make one more stub. ebx: the last order.
1:      movl MAILBOX_ORDER(%rbp), %eax
        cmpl %ebx, %eax
        jne 2f
        movl $SYS_futex, %eax
        movq %rbp, %rdi
        movl $FUTEX_WAIT, %esi
        movl %ebx, %edx
        xorl %r10d, %r10d
        syscall
        jmp 1b
2:      movl %eax, %ebx
        movq MAILBOX_ZYGOTE(%rbp), %r14
        movl $SYS_clone, %eax
        movl $PROCESS_FLAGS, %edi
        xorl %esi, %esi
        xorl %edx, %edx
        xorl %r10d, %r10d
        xorl %r8d, %r8d
        syscall
        testq %rax, %rax
        jz systrap_stub_start
        movq %rax, MAILBOX_RESULT(%rbp)
        movl %ebx, MAILBOX_DONE(%rbp)
        movl $SYS_futex, %eax
        leaq MAILBOX_DONE(%rbp), %rdi
        movl $FUTEX_WAKE, %esi
        movl $1, %edx
        syscall
        jmp 1b

        .globl systrap_end
systrap_end:
        .section .note.GNU-stack, "", @progbits
