// Devices: what the gofer has found out about the host's file systems, by device number, so that it asks once for each
// and not for each file. Thread-safe.
#ifndef MOAT_RUNSC_GOFER_DEVICES_H_
#define MOAT_RUNSC_GOFER_DEVICES_H_

#include <cstdint>
#include <map>

#include "platform/base/mutex.h"
#include "platform/base/result.h"

namespace moat::gofer {

class Devices {
 public:
  // Whether the file system of `fd`, an object with that device number, shows the host's kernel and processes rather
  // than files.
  Result<bool> IsKernelInterface(int fd, uint64_t device);

  // How the directories of a file system find names.
  struct Names {
    bool all_listed = false;  // each name that can be looked up is listed
    bool tried = false;       // a name was tried in the other case, in some directory
    bool folds = false;       // and found
  };
  // `dir`: a directory with that device number. (A file's, on an overlay, is that of the layer's.)
  Names NamesOf(int dir, uint64_t device);
  void NoteFolding(uint64_t device, bool folds);

 private:
  Mutex mu_{LockRank::kLeaf};
  std::map<uint64_t, bool> kernel_interfaces_ ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, Names> names_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat::gofer

#endif  // MOAT_RUNSC_GOFER_DEVICES_H_
