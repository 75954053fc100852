// Structs of epoll(7), timerfd_create(2) and signalfd(2) as guests lay them out.
#ifndef MOAT_PLATFORM_ABI_EVENT_H_
#define MOAT_PLATFORM_ABI_EVENT_H_

#include <sys/signalfd.h>

#include <cstdint>

namespace moat::abi {

// struct epoll_event: packed on x86-64.
struct [[gnu::packed]] EpollEvent {
  uint32_t events = 0;
  uint64_t data = 0;
};
static_assert(sizeof(EpollEvent) == 12);

using SignalfdSiginfo = ::signalfd_siginfo;
static_assert(sizeof(SignalfdSiginfo) == 128);

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_EVENT_H_
