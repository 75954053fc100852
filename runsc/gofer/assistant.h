// Assistant: a thread that takes its share of a long list of jobs. While the gofer looks many names up, the sentry
// waits for the reply and the guest for the sentry, so there is a CPU that has nothing else to do.
#ifndef MOAT_RUNSC_GOFER_ASSISTANT_H_
#define MOAT_RUNSC_GOFER_ASSISTANT_H_

#include <atomic>
#include <cstdint>

#include "absl/functional/function_ref.h"

namespace moat::gofer {

class Assistant {
 public:
  using Job = absl::FunctionRef<void(uint32_t)>;

  // Runs job(0) to job(count - 1), each once, and returns when all have ended: here, and on the assistant's thread as
  // far as that comes in time. It may not come at all: there is none, it has somebody else's jobs, or no CPU. From any
  // thread.
  void Share(uint32_t count, Job job);

  // What the assistant's thread does until Stop, which nobody calls who may still share.
  void Work();
  void Stop();

  // Of fewer jobs there is none left when the assistant has woken up.
  static constexpr uint32_t kMany = 8;

 private:
  enum State : uint32_t {
    kNobody,   // there is no thread
    kIdle,     // no jobs
    kClaimed,  // somebody is about to offer some
    kOffered,  // until the thread takes them or the offer is taken back
    kTaken,    // the thread is at them
    kDone,     // and has left them; who offered them has not seen it yet
    kStopped,
  };
  void TakeJobs();

  std::atomic<uint32_t> state_{kNobody};
  // Written by who claimed, read by both after that.
  const Job* job_ = nullptr;
  uint32_t count_ = 0;
  std::atomic<uint32_t> next_{0};
};

}  // namespace moat::gofer

#endif  // MOAT_RUNSC_GOFER_ASSISTANT_H_
