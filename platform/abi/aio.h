// Structs of asynchronous I/O as x86-64 guests lay them out. Source: io_submit(2), io_getevents(2), linux/aio_abi.h.
#ifndef MOAT_PLATFORM_ABI_AIO_H_
#define MOAT_PLATFORM_ABI_AIO_H_

#include <linux/aio_abi.h>

#include <cstdint>

namespace moat::abi {

using Iocb = ::iocb;
using IoEvent = ::io_event;
struct AioSigset {  // io_pgetevents(2)'s last argument points to one
  uint64_t mask = 0, size = 0;
};

static_assert(sizeof(Iocb) == 64);
static_assert(sizeof(IoEvent) == 32);

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_AIO_H_
