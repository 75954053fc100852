#include "sentry/kernel/aio.h"

#include <sys/epoll.h>

#include <algorithm>

namespace moat {
namespace {

constexpr uint32_t kMaxRequests = 65536;  // fs.aio-max-nr
std::atomic<uint32_t> requests{0};        // fs.aio-nr

}  // namespace

class AioContext::PollRequest final : public RefCounted, public Waiter {
 public:
  PollRequest(AioContext& context, RefPtr<File> file, EventMask events, const abi::IoEvent& event)
      : Waiter(events), context_(context), file_(std::move(file)), event_(event) {}
  File& file() { return *file_; }
  const abi::IoEvent& event() const { return event_; }
  bool TakeFired() { return fired_.exchange(false, std::memory_order_acq_rel); }

 private:
  bool OnEvent(EventMask) override {
    fired_.store(true, std::memory_order_release);
    context_.any_fired_.store(true, std::memory_order_release);
    context_.queue_.Notify(EPOLLIN);
    return true;
  }

  AioContext& context_;  // outlives the registration
  const RefPtr<File> file_;
  const abi::IoEvent event_;
  std::atomic<bool> fired_{false};
};

AioContext::AioContext(uint32_t asked, uint32_t capacity) : asked_(asked), capacity_(capacity) {}
AioContext::~AioContext() = default;

Result<void> AioContext::Reserve() {
  MutexLock lock(mu_);
  if (destroyed_) return kEINVAL;
  if (places_ >= capacity_) return kEAGAIN;
  ++places_;
  return {};
}

void AioContext::Release() {
  MutexLock lock(mu_);
  --places_;
}

void AioContext::Complete(const abi::IoEvent& event) {
  {
    MutexLock lock(mu_);
    if (destroyed_) return;
    events_.push_back(event);
  }
  queue_.Notify(EPOLLIN);
}

void AioContext::FinishPoll(PollRequest& p, EventMask ready) {
  RefPtr<PollRequest> keep(&p);
  {
    MutexLock lock(mu_);
    auto it = std::find_if(polls_.begin(), polls_.end(), [&](const RefPtr<PollRequest>& o) { return o.get() == &p; });
    if (it == polls_.end()) return;  // somebody else was faster
    polls_.erase(it);
  }
  p.file().wait_queue().Remove(p);
  abi::IoEvent event = p.event();
  event.res = static_cast<int64_t>(ready);
  Complete(event);
}

void AioContext::Poll(RefPtr<File> file, EventMask events, const abi::IoEvent& event) {
  auto p = MakeRef<PollRequest>(*this, std::move(file), events, event);
  {
    MutexLock lock(mu_);
    if (destroyed_) return;
    polls_.push_back(p);
    p->file().wait_queue().Add(*p);
  }
  if (const EventMask ready = p->file().Poll(events) & events; ready != 0) FinishPoll(*p, ready);
}

bool AioContext::CancelPoll(uint64_t obj) {
  RefPtr<PollRequest> found;
  {
    MutexLock lock(mu_);
    for (const RefPtr<PollRequest>& p : polls_)
      if (p->event().obj == obj) found = p;
  }
  if (!found) return false;
  FinishPoll(*found, 0);
  return true;
}

void AioContext::CompleteFired() {
  if (!any_fired_.exchange(false, std::memory_order_acq_rel)) return;
  std::vector<RefPtr<PollRequest>> fired;
  {
    MutexLock lock(mu_);
    for (const RefPtr<PollRequest>& p : polls_)
      if (p->TakeFired()) fired.push_back(p);
  }
  // Without the lock: a file's Poll takes locks of its own. What was there may be gone again; then the wait goes on.
  for (const RefPtr<PollRequest>& p : fired) {
    if (const EventMask ready = p->file().Poll(p->mask()) & p->mask(); ready != 0) FinishPoll(*p, ready);
  }
}

Result<void> AioContext::Take(size_t max, std::vector<abi::IoEvent>& out) {
  CompleteFired();
  MutexLock lock(mu_);
  if (destroyed_) return kEINVAL;
  const size_t n = std::min(max, events_.size());
  if (n == 0) return kEAGAIN;
  out.insert(out.end(), events_.begin(), events_.begin() + static_cast<ptrdiff_t>(n));
  events_.erase(events_.begin(), events_.begin() + static_cast<ptrdiff_t>(n));
  places_ -= static_cast<uint32_t>(n);
  return {};
}

void AioContext::PutBack(std::span<const abi::IoEvent> events) {
  MutexLock lock(mu_);
  if (destroyed_) return;
  events_.insert(events_.begin(), events.begin(), events.end());
  places_ += static_cast<uint32_t>(events.size());
}

void AioContext::Destroy() {
  std::vector<RefPtr<PollRequest>> polls;
  {
    MutexLock lock(mu_);
    if (destroyed_) return;
    destroyed_ = true;
    polls.swap(polls_);
    events_.clear();
  }
  for (const RefPtr<PollRequest>& p : polls) p->file().wait_queue().Remove(*p);
  requests.fetch_sub(asked_, std::memory_order_relaxed);
  queue_.Notify(EPOLLIN);
}

uint32_t AioContexts::total() { return requests.load(std::memory_order_relaxed); }

Result<RefPtr<AioContext>> AioContexts::Make(uint32_t asked, uint32_t capacity) {
  if (asked > kMaxRequests) return kEAGAIN;
  if (requests.fetch_add(asked, std::memory_order_relaxed) > kMaxRequests - asked) {
    requests.fetch_sub(asked, std::memory_order_relaxed);
    return kEAGAIN;
  }
  return MakeRef<AioContext>(asked, capacity);
}

void AioContexts::Add(GuestAddr id, RefPtr<AioContext> context) {
  RefPtr<AioContext> replaced;  // its page was unmapped by hand, and the address was given out again
  {
    MutexLock lock(mu_);
    RefPtr<AioContext>& slot = contexts_[id];
    replaced = std::move(slot);
    slot = std::move(context);
  }
  if (replaced) replaced->Destroy();
}

RefPtr<AioContext> AioContexts::Find(GuestAddr id) {
  MutexLock lock(mu_);
  auto it = contexts_.find(id);
  return it == contexts_.end() ? nullptr : it->second;
}

RefPtr<AioContext> AioContexts::Remove(GuestAddr id) {
  MutexLock lock(mu_);
  auto it = contexts_.find(id);
  if (it == contexts_.end()) return nullptr;
  RefPtr<AioContext> context = std::move(it->second);
  contexts_.erase(it);
  return context;
}

void AioContexts::Clear() {
  std::map<GuestAddr, RefPtr<AioContext>> all;
  {
    MutexLock lock(mu_);
    all.swap(contexts_);
  }
  for (auto& [id, context] : all) context->Destroy();
}

}  // namespace moat
