#include "platform/memory/copy_epoch.h"

namespace moat {

CopyEpoch& MemoryCopyEpoch() {
  static CopyEpoch epoch;
  return epoch;
}

}  // namespace moat
