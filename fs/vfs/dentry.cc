#include "fs/vfs/dentry.h"

#include <vector>

#include "fs/vfs/dentry_lru.h"
#include "fs/vfs/filesystem.h"
#include "fs/vfs/notify.h"
#include "platform/base/log.h"

namespace moat {
namespace {

// Guards the shape of all trees: name_, parent_ and pins_. Taken inside of the parents' mu_.
SharedMutex& TreeLock() {
  static SharedMutex* mu = new SharedMutex(LockRank::kLeaf);
  return *mu;
}

}  // namespace

Dentry::Dentry(RefPtr<Dentry> parent, std::string_view name, RefPtr<Inode> inode, uint32_t state)
    : inode_(inode.Leak()), state_(state), hash_(Hash(name)), name_(name), parent_(std::move(parent)) {}

Dentry::~Dentry() {
  Inode* inode = inode_ptr();
  if (inode == nullptr) return;
  if (IsDetached() && notify::AnyWatch()) {
    Result<Kstat> st = inode->GetAttr();
    if (st.ok() && st->nlink == 0) notify::EmitEvent(*inode, IN_DELETE_SELF);
  }
  inode->Unref();
}

// Iterative: a guest can make a chain of directories deeper than any stack.
void Dentry::OnLastUnref() {
  Dentry* d = this;
  while (d != nullptr) {
    Dentry* parent = d->parent_.Leak();
    delete d;
    d = parent != nullptr && parent->DropRef() ? parent : nullptr;
  }
}

RefPtr<Dentry> Dentry::CreateRoot(RefPtr<Inode> inode) {
  return AdoptRef(new Dentry(nullptr, "/", std::move(inode), kRoot));
}

RefPtr<Dentry> Dentry::CreateAnonymous(RefPtr<Inode> inode, std::string name) {
  return AdoptRef(new Dentry(nullptr, name, std::move(inode), kAnonymous));
}

RefPtr<Dentry> Dentry::CreateUnlinked(Dentry& parent, RefPtr<Inode> inode, std::string name) {
  return AdoptRef(new Dentry(RefPtr<Dentry>(&parent), name, std::move(inode), kUnlinked));
}

uint32_t Dentry::Hash(std::string_view name) {
  // Multiply and fold, eight bytes at a time; names are short. Not keyed: a guest can only slow down itself, as a
  // table grows with its children and lives in the guest's own sandbox.
  uint64_t h = name.size() * 0x9E3779B97F4A7C15ull;
  const char* p = name.data();
  size_t n = name.size();
  auto mix = [&h](uint64_t v) {
    unsigned __int128 m = static_cast<unsigned __int128>(h ^ v) * 0xD6E8FEB86659FD93ull;
    h = static_cast<uint64_t>(m) ^ static_cast<uint64_t>(m >> 64);
  };
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t v;
    memcpy(&v, p, 8);
    mix(v);
  }
  if (n > 0) {
    uint64_t v = 0;
    memcpy(&v, p, n);
    mix(v);
  }
  return static_cast<uint32_t>(h ^ (h >> 32));
}

bool Dentry::caches() const { return inode_ptr()->fs().caches_dentries(); }

RefPtr<Dentry> Dentry::parent() const {
  ReaderLock lock(TreeLock());
  return parent_;
}

std::string Dentry::name() const {
  ReaderLock lock(TreeLock());
  return name_;
}

bool Dentry::IsAncestorOf(const Dentry& d) const {
  ReaderLock lock(TreeLock());
  for (const Dentry* at = &d; at != nullptr; at = at->parent_.get()) {
    if (at == this) return true;
  }
  return false;
}

Dentry* Dentry::FindLocked(std::string_view name, uint32_t hash) const {
  if (bucket_count_ == 0) return nullptr;
  for (Dentry* d = buckets_[hash & (bucket_count_ - 1)]; d != nullptr; d = d->hash_next_) {
    if (d->hash_ == hash && d->name_ == name) return d;
  }
  return nullptr;
}

void Dentry::GrowLocked() {
  uint32_t count = bucket_count_ == 0 ? 4 : bucket_count_ * 2;
  auto buckets = std::make_unique<Dentry*[]>(count);
  for (uint32_t i = 0; i < bucket_count_; ++i) {
    for (Dentry* d = buckets_[i]; d != nullptr;) {
      Dentry* next = d->hash_next_;
      Dentry*& bucket = buckets[d->hash_ & (count - 1)];
      d->hash_next_ = bucket;
      bucket = d;
      d = next;
    }
  }
  buckets_ = std::move(buckets);
  bucket_count_ = count;
}

void Dentry::InsertLocked(Dentry* child) {
  if (child_count_ >= bucket_count_) GrowLocked();
  Dentry*& bucket = buckets_[child->hash_ & (bucket_count_ - 1)];
  child->hash_next_ = bucket;
  bucket = child;
  ++child_count_;
  child->AddRef();
  child->state_.fetch_or(kHashed, std::memory_order_release);
  DentryLru::Get().Add(child);
}

void Dentry::EraseLocked(Dentry* child) {
  Dentry** link = &buckets_[child->hash_ & (bucket_count_ - 1)];
  while (*link != child) {
    MOAT_CHECK(*link != nullptr);
    link = &(*link)->hash_next_;
  }
  *link = child->hash_next_;
  child->hash_next_ = nullptr;
  --child_count_;
  child->state_.fetch_and(~uint32_t{kHashed}, std::memory_order_release);
  DentryLru::Get().Remove(child);
}

RefPtr<Dentry> Dentry::CachedChild(std::string_view name) {
  uint32_t hash = Hash(name);
  MutexLock lock(mu_);
  Dentry* d = FindLocked(name, hash);
  if (d == nullptr) return nullptr;
  // Store only on a change: hits of many threads then share the cache line.
  if (!d->recently_used_.load(std::memory_order_relaxed)) d->recently_used_.store(true, std::memory_order_relaxed);
  return RefPtr<Dentry>(d);
}

Result<RefPtr<Dentry>> Dentry::LookupChild(const VfsContext& ctx, std::string_view name) {
  if (RefPtr<Dentry> d = CachedChild(name)) return d;
  // Nothing is inserted where nothing is cached, so there is nothing to serialise; and a generated tree's lookup may
  // take the kernel's outermost locks.
  if (!caches()) return LookupChildLocked(ctx, name);
  Result<RefPtr<Dentry>> found = kENOENT;
  {
    MutexLock lock(dir_mutex());
    found = LookupChildLocked(ctx, name);
  }
  DentryLru::Get().Shrink();
  return found;
}

Result<RefPtr<Dentry>> Dentry::LookupChildLocked(const VfsContext& ctx, std::string_view name) {
  if (RefPtr<Dentry> d = CachedChild(name)) return d;
  Result<RefPtr<Inode>> inode = inode_ptr()->Lookup(ctx, name);
  if (!inode.ok() && inode.error() != kENOENT) return inode.error();
  RefPtr<Dentry> child =
      AdoptRef(new Dentry(RefPtr<Dentry>(this), name, inode.ok() ? std::move(inode).value() : RefPtr<Inode>(), 0));
  if (caches() && !IsDetached()) {
    MutexLock lock(mu_);
    // dir_mutex is held: nobody else can have inserted this name since the look above.
    InsertLocked(child.get());
  }
  return child;
}

void Dentry::Instantiate(RefPtr<Inode> inode) {
  MOAT_CHECK(inode_ptr() == nullptr);
  inode_.store(inode.Leak(), std::memory_order_release);
}

void Dentry::Unhash() {
  RefPtr<Dentry> p = parent();
  if (!p) return;
  bool drop = false;
  {
    MutexLock lock(p->mu_);
    if ((state_.load(std::memory_order_relaxed) & kHashed) != 0) {
      p->EraseLocked(this);
      drop = true;
    }
  }
  if (drop) Unref();
}

void Dentry::MarkUnlinked() {
  RefPtr<Dentry> self(this);
  state_.fetch_or(kUnlinked, std::memory_order_release);
  Unhash();
  if (inode_ptr() != nullptr && inode_ptr()->is_dir()) InvalidateChildren();
}

void Dentry::Move(Dentry& d, Dentry& new_parent, std::string_view new_name) {
  RefPtr<Dentry> self(&d);
  RefPtr<Dentry> old_parent = d.parent();
  RefPtr<Dentry> replaced;
  RefPtr<Dentry> drop_parent;
  bool drop = false;
  {
    MutexLock2 lock(old_parent->mu_, new_parent.mu_);
    uint32_t hash = Hash(new_name);
    if (Dentry* there = new_parent.FindLocked(new_name, hash); there != nullptr && there != &d) {
      new_parent.EraseLocked(there);
      replaced = AdoptRef(there);
    }
    bool hashed = (d.state_.load(std::memory_order_relaxed) & kHashed) != 0;
    if (hashed) {
      old_parent->EraseLocked(&d);
      drop = true;
    }
    {
      WriterLock tree(TreeLock());
      d.name_ = std::string(new_name);
      d.hash_ = hash;
      drop_parent = std::move(d.parent_);
      d.parent_ = RefPtr<Dentry>(&new_parent);
    }
    if (hashed) new_parent.InsertLocked(&d);
  }
  if (drop) d.Unref();
}

void Dentry::Exchange(Dentry& a, Dentry& b) {
  RefPtr<Dentry> pa = a.parent(), pb = b.parent();
  bool drop_a = false, drop_b = false;
  {
    MutexLock2 lock(pa->mu_, pb->mu_);
    drop_a = (a.state_.load(std::memory_order_relaxed) & kHashed) != 0;
    drop_b = (b.state_.load(std::memory_order_relaxed) & kHashed) != 0;
    if (drop_a) pa->EraseLocked(&a);
    if (drop_b) pb->EraseLocked(&b);
    {
      WriterLock tree(TreeLock());
      std::swap(a.name_, b.name_);
      std::swap(a.hash_, b.hash_);
      std::swap(a.parent_, b.parent_);
    }
    if (drop_a) pb->InsertLocked(&a);
    if (drop_b) pa->InsertLocked(&b);
  }
  if (drop_a) a.Unref();
  if (drop_b) b.Unref();
}

void Dentry::InvalidateChildren() {
  std::vector<RefPtr<Dentry>> pending;
  pending.emplace_back(this);
  // The popped dentries live until the end, so that the last references go leaf by leaf in OnLastUnref.
  while (!pending.empty()) {
    RefPtr<Dentry> d = std::move(pending.back());
    pending.pop_back();
    MutexLock lock(d->mu_);
    for (uint32_t i = 0; i < d->bucket_count_; ++i) {
      while (Dentry* child = d->buckets_[i]) {
        d->EraseLocked(child);
        pending.push_back(AdoptRef(child));
      }
    }
  }
}

bool Dentry::TryEvict(RefPtr<Dentry> victim) {
  RefPtr<Dentry> parent = victim->parent();
  if (!parent) return false;
  MutexLock lock(parent->mu_);
  if ((victim->state_.load(std::memory_order_relaxed) & kHashed) == 0) return false;
  // The table's reference and ours: with the table locked nobody can take another one. A child of the victim
  // would hold one too.
  if (victim->RefCountForTesting() != 2) return false;
  parent->EraseLocked(victim.get());
  victim->Unref();
  return true;
}

void Dentry::PinMountPoint() {
  mount_count.fetch_add(1, std::memory_order_relaxed);
  if (caches()) return;
  for (RefPtr<Dentry> d(this); d; d = d->parent()) {
    RefPtr<Dentry> p = d->parent();
    WriterLock tree(TreeLock());
    ++d->pins_;
    if (!p) break;
  }
  for (RefPtr<Dentry> d(this), p = d->parent(); p; d = p, p = d->parent()) {
    RefPtr<Dentry> replaced;
    MutexLock lock(p->mu_);
    if ((d->state_.load(std::memory_order_relaxed) & kHashed) != 0) continue;
    if (Dentry* there = p->FindLocked(d->name_, d->hash_)) {
      p->EraseLocked(there);
      replaced = AdoptRef(there);
    }
    p->InsertLocked(d.get());
  }
}

void Dentry::UnpinMountPoint() {
  mount_count.fetch_sub(1, std::memory_order_relaxed);
  if (caches()) return;
  for (RefPtr<Dentry> d(this), p = d->parent(); p; d = p, p = d->parent()) {
    bool last;
    {
      WriterLock tree(TreeLock());
      last = --d->pins_ == 0;
    }
    if (last) d->Unhash();
  }
}

}  // namespace moat
