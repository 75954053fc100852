// What trampoline.S and the sentry agree on: addresses in a stub and offsets in the pages that both see. Plain macros,
// because the assembler reads them too. See layout.h for what they mean.
#ifndef MOAT_PLATFORM_SYSTRAP_ABI_H_
#define MOAT_PLATFORM_SYSTRAP_ABI_H_

// Addresses. Guest mappings end at SYSTRAP_AREAS.
#define SYSTRAP_AREAS 0x7fffb0000000     // areas of guest threads, SYSTRAP_AREA_SIZE each
#define SYSTRAP_TEXT 0x7ffffffd0000      // the trampoline, read and execute
#define SYSTRAP_FILTERS 0x7ffffffd1000   // seccomp programs, read and execute
#define SYSTRAP_THUNKS 0x7ffffffd2000    // a thunk for each patched call site, read and execute
#define SYSTRAP_COMMANDS 0x7ffffffe2000  // the stub's command page, read only here
#define SYSTRAP_MAILBOX 0x7ffffffe3000   // the zygote's orders; only the zygote has it
#define SYSTRAP_USER_END 0x7ffffffff000
#define SYSTRAP_IMAGE_SIZE 0x12000  // text, filters and thunks

// The tables of patched sites: in guest memory that only the sentry writes, at a fixed address below 2 GiB, so that a
// jump through them is one instruction of 7 bytes: ff 24 25 X0..XX XX cc 7f. Its sixth byte is a breakpoint: there
// began the instruction where a `mov $immediate, %eax` before it was overwritten too.
#define SYSTRAP_CPUID 0x7fcbf000    // a page: struct CpuidTable
#define SYSTRAP_TABLES 0x7fcc0000   // TABLE_ENTRY bytes a site: its thunk, and what the overwritten `mov` loaded
#define SYSTRAP_RETURNS 0x7fcc8000  // 8 bytes a site: the address behind its instruction
#define SYSTRAP_TABLES_END 0x7fccc000
#define TABLE_ENTRY 16
#define TABLE_NUMBER 8
// Sites by number: `cpuid` and `syscall` in files' code, which all processes share; then those of one address space.
#define SYSTRAP_CPUID_SITES 256
#define SYSTRAP_SHARED_SITES 1024
#define SYSTRAP_MAX_SITES 2048
#define THUNK_SIZE 32
#define THUNK_CALL 10      // `syscall`: for calls that are not answered here
#define THUNK_RETURN 12    // the jump behind it
#define THUNK_NUMBERED 19  // the other entry: loads the call's number
// Those of `cpuid`; the entry at 0 loads the leaf.
#define THUNK_CPUID_UNNUMBERED 7
#define THUNK_CPUID 17
#define THUNK_CPUID_RETURN 19

// struct CpuidTable: where its entries end, and the entries.
#define CPUID_END SYSTRAP_CPUID
#define CPUID_ENTRIES (SYSTRAP_CPUID + 32)
#define CPUID_ENTRY 32
#define CPUID_LEAF 0
#define CPUID_SUBLEAF 4
#define CPUID_ANY 8  // whether the subleaf does not matter
#define CPUID_EAX 12
#define CPUID_EBX 16
#define CPUID_ECX 20
#define CPUID_EDX 24

#define SYSTRAP_AREA_SIZE 0x4000
#define SYSTRAP_MAX_AREAS 65536

// The call number of Enter: no Linux call has it, and the filter of a guest thread notifies the sentry of it.
#define SYSTRAP_ENTER 0x4d6f

// The sentry's answers to Enter.
#define SYSTRAP_RESUME 1  // load segment bases, return through the signal frame
#define SYSTRAP_EXIT 2    // the thread ends
#define SYSTRAP_AGAIN 3   // ask again
#define SYSTRAP_RSEQ 4    // call rseq(2) as the area says, then ask again with the result as sixth argument

// struct Area
#define AREA_FS_BASE 0
#define AREA_GS_BASE 8
#define AREA_FRAME 16
#define AREA_LISTENER 24
#define AREA_AGENT 28
#define AREA_STACK_T 32
#define AREA_RSEQ 56
#define AREA_RSEQ_FLAGS 64
#define AREA_RSEQ_SIGNATURE 68
#define AREA_MAGIC 72
#define AREA_ANSWERS 76
#define AREA_TGID 80
#define AREA_TID 84
#define AREA_PPID 88
#define AREA_UID 92
#define AREA_EUID 96
#define AREA_GID 100
#define AREA_EGID 104
#define AREA_LISTENING 108
#define AREA_COPY_OFFSET 112
#define AREA_COPY_FD 120
#define AREA_FAULT_INFO 128
#define AREA_FAULT_FRAME 136
#define AREA_FAULT_FS 144
#define AREA_FAULT_GS 152
#define AREA_CPUID_SITE 160
#define AREA_CPUID_RETURN 168
// The mailbox: one cache line but for the last argument.
#define AREA_STATE 256
#define AREA_FLAGS 260
#define AREA_NUMBER 264
#define AREA_SITE 268  // eight times the site's index, or MAILBOX_FRAME
#define AREA_RESULT 272
#define AREA_ARGS 280

// AREA_STATE
#define MAILBOX_EMPTY 0
#define MAILBOX_CALL 1      // by the guest: a call is in the box
#define MAILBOX_TAKEN 2     // by the sentry: it works on it
#define MAILBOX_ANSWERED 3  // by the sentry: the result is in the box
// A flag of the first two, by the guest: it will sleep next, and whoever answers wakes it.
#define MAILBOX_SLEEPING 4
// A flag of MAILBOX_TAKEN, by the sentry: the answer will be long in coming.
#define MAILBOX_LONG 8

// In place of a site: the handler's, with the arguments of Enter.
#define MAILBOX_FRAME 0xffffffff

// The call number with which a thread sleeps until its mailbox is answered.
#define SYSTRAP_SLEEP 0x4d70
// For how many cycles of the time stamp counter a thread looks at its mailbox before it sleeps: about 150 us, longer
// than its carrier's move to another CPU.
#define MAILBOX_PATIENCE 400000

// What the gs base of a guest thread points to when the guest has none of its own: an area.
#define AREA_MAGIC_VALUE 0x7461306d

// struct CommandPage
#define COMMAND_SIZE 56
#define COMMANDS_MAX 72
#define COMMANDS_THREAD_ORDER 4080
#define COMMANDS_THREAD_AREA 4088

// struct Mailbox
#define MAILBOX_ORDER 0
#define MAILBOX_DONE 4
#define MAILBOX_COMMANDS_FD 8
#define MAILBOX_AREAS_FD 12
#define MAILBOX_PAGE 16
#define MAILBOX_AREA 24
#define MAILBOX_ZYGOTE 32
#define MAILBOX_RESULT 40

#endif  // MOAT_PLATFORM_SYSTRAP_ABI_H_
