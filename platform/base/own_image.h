// The program's own code in memory.
#ifndef MOAT_PLATFORM_BASE_OWN_IMAGE_H_
#define MOAT_PLATFORM_BASE_OWN_IMAGE_H_

namespace moat {

// Takes the code and constants that have been used so far out of this process's resident memory: for a process that has
// done its starting up and mostly waits from now on. What is needed again comes back from the file by minor faults.
// Thread-safe. Source: madvise(2) MADV_DONTNEED on private file mappings, dl_iterate_phdr(3).
void DropOwnCode();

}  // namespace moat

#endif  // MOAT_PLATFORM_BASE_OWN_IMAGE_H_
