#include "platform/base/own_image.h"

#include <link.h>
#include <sys/mman.h>

namespace moat {

void DropOwnCode() {
  constexpr uintptr_t kPage = 4096;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void*) {
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const ElfW(Phdr)& p = info->dlpi_phdr[i];
          // What is writable holds our data, relocated constants included.
          if (p.p_type != PT_LOAD || (p.p_flags & PF_W) != 0) continue;
          const uintptr_t start = (info->dlpi_addr + p.p_vaddr) & ~(kPage - 1);
          const uintptr_t end = info->dlpi_addr + p.p_vaddr + p.p_filesz;
          // Advice: a failure leaves everything as it was.
          madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);
        }
        return 1;  // the program only, not the libraries of a dynamic build
      },
      nullptr);
}

}  // namespace moat
