// OperationQueue: what an address space is still to carry out in its stub, in order. Neighbours that need the same
// become one, what is mapped over what was just unmapped replaces it.
//
// Mappings of places where the stub has nothing may wait: who touches one meets a fault, and has them carried out then.
// A dynamic loader maps a library whole and then, over that, its segments, and touches the last one first. While
// nothing else is queued, what such a mapping loses again is cut out of it. Not thread-safe.
#ifndef MOAT_PLATFORM_SYSTRAP_OPERATION_QUEUE_H_
#define MOAT_PLATFORM_SYSTRAP_OPERATION_QUEUE_H_

#include <cstddef>
#include <vector>

#include "platform/systrap/layout.h"

namespace moat::systrap_platform {

class OperationQueue {
 public:
  // `later`: a mapping that may wait, if nothing is queued that may not.
  void Push(const Command& command, bool later);
  // Moves the first ones, at most `most`, to `to`; they may not wait any more. Returns how many.
  int Take(Command* to, int most);
  void Clear();

  size_t size() const { return commands_.size(); }
  bool empty() const { return commands_.empty(); }
  bool may_wait() const { return may_wait_; }
  const Command& front() const { return commands_.front(); }

 private:
  bool Cut(const Command& unmap);
  bool Join(const Command& command);

  std::vector<Command> commands_;
  bool may_wait_ = false;  // all of them: mappings of disjoint places where nothing is
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_OPERATION_QUEUE_H_
