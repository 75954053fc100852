#include "sentry/ipc/mqueue_namespace.h"

#include "fs/vfs/vfs.h"
#include "sentry/kernel/kernel.h"

namespace moat {
namespace {

class MqueueType final : public FileSystemType {
 public:
  explicit MqueueType(Kernel& kernel) : kernel_(kernel) {}
  std::string_view name() const override { return "mqueue"; }
  bool mountable_in_user_ns() const override { return true; }
  // Every mount in an ipc namespace shows the same queues.
  Result<RefPtr<FileSystem>> Mount(const VfsContext& ctx, const MountRequest&) override {
    auto* task = static_cast<Task*>(ctx.task);
    RefPtr<IpcNamespace> ns = task != nullptr ? task->ipc_ns() : kernel_.root_ipc_ns();
    return RefPtr<FileSystem>(MqueuesOf(*ns));
  }

 private:
  Kernel& kernel_;
};

}  // namespace

RefPtr<MqueueFs> MqueuesOf(IpcNamespace& ns) {
  RefPtr<RefCounted> fs = ns.slot(IpcNamespace::kMqueue);
  if (!fs) fs = ns.AttachOnce(IpcNamespace::kMqueue, MqueueFs::Create());
  return RefPtr<MqueueFs>(static_cast<MqueueFs*>(fs.get()));
}

void RegisterMqueue(Kernel& kernel) { vfs::RegisterFileSystemType(*new MqueueType(kernel)); }

}  // namespace moat
