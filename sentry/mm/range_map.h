// RangeMap<T>: disjoint half-open address ranges in order, each with a value. Not thread-safe.
// T has `start`, `end`, CutFront(addr): drop [start, addr), CutBack(addr): drop [addr, end), and
// Continues(next): the two may be joined into one T by extending `end`.
#ifndef MOAT_SENTRY_MM_RANGE_MAP_H_
#define MOAT_SENTRY_MM_RANGE_MAP_H_

#include <iterator>
#include <map>
#include <utility>

#include "platform/usermem/guest_memory.h"

namespace moat {

template <typename T>
class RangeMap {
 public:
  using Map = std::map<GuestAddr, T>;
  using iterator = typename Map::iterator;
  using const_iterator = typename Map::const_iterator;

  iterator begin() { return map_.begin(); }
  iterator end() { return map_.end(); }
  const_iterator begin() const { return map_.begin(); }
  const_iterator end() const { return map_.end(); }
  size_t size() const { return map_.size(); }
  bool empty() const { return map_.empty(); }

  // The first range that ends above `addr`: the one that contains it, or the next higher one.
  iterator FirstAbove(GuestAddr addr) {
    iterator it = map_.upper_bound(addr);
    if (it != map_.begin()) {
      iterator before = std::prev(it);
      if (before->second.end > addr) return before;
    }
    return it;
  }
  // The range that contains `addr`, or end().
  iterator Find(GuestAddr addr) {
    iterator it = FirstAbove(addr);
    return it != map_.end() && it->second.start <= addr ? it : map_.end();
  }
  bool Overlaps(GuestAddr start, GuestAddr end) {
    iterator it = FirstAbove(start);
    return it != map_.end() && it->second.start < end;
  }

  // The range must not overlap another.
  iterator Insert(T value) {
    const GuestAddr start = value.start;
    return map_.insert_or_assign(start, std::move(value)).first;
  }
  iterator Erase(iterator it) { return map_.erase(it); }

  // Makes `addr` a boundary. Returns the first range that starts at or above `addr`.
  iterator SplitAt(GuestAddr addr) {
    iterator it = FirstAbove(addr);
    if (it == map_.end() || it->second.start >= addr) return it;
    T right = it->second;
    right.CutFront(addr);
    it->second.CutBack(addr);
    return map_.emplace_hint(std::next(it), addr, std::move(right));
  }

  // Joins the range at `it` with its neighbours where they continue each other. Returns the joined range.
  iterator Join(iterator it) {
    if (it != map_.begin()) {
      iterator before = std::prev(it);
      if (before->second.end == it->second.start && before->second.Continues(it->second)) {
        before->second.end = it->second.end;
        map_.erase(it);
        it = before;
      }
    }
    iterator next = std::next(it);
    if (next != map_.end() && it->second.end == next->second.start && it->second.Continues(next->second)) {
      it->second.end = next->second.end;
      map_.erase(next);
    }
    return it;
  }

 private:
  Map map_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_MM_RANGE_MAP_H_
