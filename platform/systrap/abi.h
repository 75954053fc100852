// What trampoline.S and the sentry agree on: addresses in a stub and offsets in the pages that both see. Plain macros,
// because the assembler reads them too. See layout.h for what they mean.
#ifndef MOAT_PLATFORM_SYSTRAP_ABI_H_
#define MOAT_PLATFORM_SYSTRAP_ABI_H_

// Addresses. Guest mappings end at SYSTRAP_AREAS.
#define SYSTRAP_AREAS 0x7fffb0000000     // areas of guest threads, SYSTRAP_AREA_SIZE each
#define SYSTRAP_TEXT 0x7ffffffe0000      // the trampoline, read and execute
#define SYSTRAP_FILTERS 0x7ffffffe1000   // seccomp programs, read and execute
#define SYSTRAP_COMMANDS 0x7ffffffe2000  // the stub's command page, read only here
#define SYSTRAP_MAILBOX 0x7ffffffe3000   // the zygote's orders; only the zygote has it
#define SYSTRAP_USER_END 0x7ffffffff000
#define SYSTRAP_IMAGE_SIZE 0x2000  // text and filters

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
