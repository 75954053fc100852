// Tells AddressSanitizer and ThreadSanitizer about stack switches; empty in other builds.
// Source: sanitizer/common_interface_defs.h, sanitizer/tsan_interface.h.
#ifndef MOAT_PLATFORM_FIBER_SANITIZER_H_
#define MOAT_PLATFORM_FIBER_SANITIZER_H_

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace moat {

// One stack: a pooled fiber's or a carrier thread's own.
class SanitizerFiber {
 public:
  void Create(const void* base, size_t size) {
    base_ = base;
    size_ = size;
#if defined(__SANITIZE_THREAD__)
    tsan_ = __tsan_create_fiber(0);
#endif
  }
  void AdoptThread() {
#if defined(__SANITIZE_THREAD__)
    tsan_ = __tsan_get_current_fiber();
#endif
  }
  void Destroy() {
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(tsan_);
#endif
  }

  // Carrier side: right before the jump to `to`.
  void StartSwitch(SanitizerFiber& to, bool leaving_for_good) {
    to.carrier_ = this;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(leaving_for_good ? nullptr : &fake_stack_, to.base_, to.size_);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to.tsan_, 0);
#endif
  }
  // Fiber side: right before the jump back to the carrier.
  void StartSwitchBack(bool leaving_for_good) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(leaving_for_good ? nullptr : &fake_stack_, carrier_->base_, carrier_->size_);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(carrier_->tsan_, 0);
#endif
  }
  // Right after a jump has arrived on this stack. `fiber`: the fiber arrived on, null on a carrier.
  void FinishSwitch(SanitizerFiber* fiber) {
#if defined(__SANITIZE_ADDRESS__)
    const void* from_base = nullptr;
    size_t from_size = 0;
    __sanitizer_finish_switch_fiber(fake_stack_, &from_base, &from_size);
    if (fiber != nullptr) {  // learn the carrier's stack, which only the sanitizer knows
      carrier_->base_ = from_base;
      carrier_->size_ = from_size;
    }
#endif
  }

 private:
  [[maybe_unused]] const void* base_ = nullptr;
  [[maybe_unused]] size_t size_ = 0;
  [[maybe_unused]] void* fake_stack_ = nullptr;
  [[maybe_unused]] void* tsan_ = nullptr;
  SanitizerFiber* carrier_ = nullptr;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_SANITIZER_H_
