#include "platform/fiber/timer.h"

#include <vector>

#include "platform/base/log.h"
#include "platform/base/mutex.h"
#include "platform/fiber/futex.h"
#include "platform/fiber/thread.h"

namespace moat {

// A binary heap of deadlines and the thread that waits for the first of them.
class TimerQueue {
 public:
  static TimerQueue& Get() {
    static TimerQueue* q = new TimerQueue;  // lives as long as its thread
    return *q;
  }

  void EnsureThread() {
    {
      MutexLock lock(mu_);
      if (started_) return;
      started_ = true;
    }
    Result<HostThread> t = HostThread::Start("timers", [this] { Run(); });
    MOAT_CHECK(t.ok());
    t->Detach();
  }

  void Arm(Timer& t, Deadline when) {
    bool first;
    {
      MutexLock lock(mu_);
      if (t.index_ == Timer::kNotQueued) {
        heap_.push_back({when, &t});
        t.index_ = heap_.size() - 1;
        Up(t.index_);
      } else {
        heap_[t.index_].when = when;
        Up(t.index_);
        Down(t.index_);
      }
      first = t.index_ == 0 && when < sleeping_until_;
    }
    if (first) Kick();
  }

  bool Disarm(Timer& t) {
    MutexLock lock(mu_);
    return DisarmLocked(t);
  }

  bool Cancel(Timer& t) {
    for (bool was = false;;) {
      {
        MutexLock lock(mu_);
        was |= DisarmLocked(t);  // a callback may have armed it again
        if (running_ != &t || on_timer_thread_) return was;
      }
      AwaitCallback(t);
    }
  }

  void AwaitCallback(Timer& t) {
    if (on_timer_thread_) return;
    uint32_t seen;
    {
      MutexLock lock(mu_);
      if (running_ != &t) return;
      seen = callbacks_done_.load(std::memory_order_relaxed);
      waiting_ = true;
    }
    while (callbacks_done_.load(std::memory_order_acquire) == seen) HostFutexWait(callbacks_done_, seen);
  }

  Deadline DeadlineOf(const Timer& t) {
    MutexLock lock(mu_);
    return t.index_ == Timer::kNotQueued ? kNoDeadline : heap_[t.index_].when;
  }

 private:
  struct Entry {
    Deadline when;
    Timer* timer;
  };

  void Place(size_t i, Entry e) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    heap_[i] = e;
    e.timer->index_ = i;
  }
  void Up(size_t i) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    Entry e = heap_[i];
    while (i > 0 && heap_[(i - 1) / 2].when > e.when) {
      Place(i, heap_[(i - 1) / 2]);
      i = (i - 1) / 2;
    }
    Place(i, e);
  }
  void Down(size_t i) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    Entry e = heap_[i];
    for (;;) {
      size_t child = 2 * i + 1;
      if (child >= heap_.size()) break;
      if (child + 1 < heap_.size() && heap_[child + 1].when < heap_[child].when) ++child;
      if (heap_[child].when >= e.when) break;
      Place(i, heap_[child]);
      i = child;
    }
    Place(i, e);
  }
  bool DisarmLocked(Timer& t) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    size_t i = t.index_;
    if (i == Timer::kNotQueued) return false;
    t.index_ = Timer::kNotQueued;
    Entry last = heap_.back();
    heap_.pop_back();
    if (last.timer != &t) {
      Place(i, last);
      Up(i);
      Down(last.timer->index_);
    }
    return true;
  }

  void Kick() {
    wakeups_.fetch_add(1, std::memory_order_release);
    HostFutexWake(wakeups_);
  }

  void Run() {
    on_timer_thread_ = true;
    for (;;) {
      uint32_t seen = wakeups_.load(std::memory_order_acquire);
      Timer* due = nullptr;
      Deadline until;
      {
        MutexLock lock(mu_);
        until = heap_.empty() ? kNoDeadline : heap_[0].when;
        if (until <= MonotonicNow()) {
          due = heap_[0].timer;
          DisarmLocked(*due);
          running_ = due;
          sleeping_until_ = 0;  // looks at the heap again before it sleeps: nobody needs to wake it
        } else {
          sleeping_until_ = until;
        }
      }
      if (due == nullptr) {
        HostFutexWait(wakeups_, seen, until);
        continue;
      }
      due->OnTimer();
      bool wake;
      {
        MutexLock lock(mu_);
        running_ = nullptr;
        wake = std::exchange(waiting_, false);
        callbacks_done_.fetch_add(1, std::memory_order_release);
      }
      if (wake) HostFutexWake(callbacks_done_, 1 << 30);
    }
  }

  static thread_local bool on_timer_thread_;

  Mutex mu_{LockRank::kTimerWheel};
  bool started_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<Entry> heap_ ABSL_GUARDED_BY(mu_);
  Timer* running_ ABSL_GUARDED_BY(mu_) = nullptr;
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;  // someone waits in Cancel
  Deadline sleeping_until_ ABSL_GUARDED_BY(mu_) = 0;
  std::atomic<uint32_t> wakeups_{0};
  std::atomic<uint32_t> callbacks_done_{0};
};

thread_local bool TimerQueue::on_timer_thread_ = false;

Timer::~Timer() { MOAT_CHECK(index_ == kNotQueued); }

void Timer::Arm(Deadline when) {
  if (when == kNoDeadline) {
    Disarm();
    return;
  }
  TimerQueue& q = TimerQueue::Get();
  q.EnsureThread();
  q.Arm(*this, when);
}

bool Timer::Disarm() { return TimerQueue::Get().Disarm(*this); }
bool Timer::Cancel() { return TimerQueue::Get().Cancel(*this); }
void Timer::AwaitCallback() { TimerQueue::Get().AwaitCallback(*this); }
Deadline Timer::deadline() const { return TimerQueue::Get().DeadlineOf(*this); }

void StartTimerThread() { TimerQueue::Get().EnsureThread(); }

}  // namespace moat
