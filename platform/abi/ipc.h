// System V IPC structures at the guest boundary: on x86-64 those of the C library are the kernel's.
#ifndef MOAT_PLATFORM_ABI_IPC_H_
#define MOAT_PLATFORM_ABI_IPC_H_

#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

namespace moat::abi {

using ShmidDs = ::shmid_ds;
static_assert(sizeof(ShmidDs) == 112);
using SemidDs = ::semid_ds;
static_assert(sizeof(SemidDs) == 104);
using MsqidDs = ::msqid_ds;
static_assert(sizeof(MsqidDs) == 120);
using Sembuf = ::sembuf;
static_assert(sizeof(Sembuf) == 6);

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_IPC_H_
