// fs/overlay over host directories: the suites of fs/overlay with the layer that a sandbox has below, and real gofers.
#include "fs/hostfs/host_filesystem.h"
#include "fs/overlay/overlay_model.h"
#include "fs/overlay/overlay_suite.h"
#include "runsc/gofer/gofer_for_test.h"

namespace moat {
namespace {

class HostLayers {
 public:
  RefPtr<FileSystem> NewFs() {
    auto layer = std::make_unique<Layer>();
    std::vector<GoferMount> mounts;
    mounts.push_back(MountOf(layer->tree.path()));
    layer->gofer = std::make_unique<GoferForTest>(std::move(mounts));
    RefPtr<FileSystem> fs = HostFs::Create(layer->gofer->client_ref(), 0, {}).value();
    layers_.push_back(std::move(layer));
    return fs;
  }

 private:
  struct Layer {
    TempTree tree;
    std::unique_ptr<GoferForTest> gofer;
  };
  std::vector<std::unique_ptr<Layer>> layers_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(Host, OverlaySuite, HostLayers);

TEST(OverlayOverHost, AnswersAsAPlainDirectory) {
  uint64_t seed = std::random_device{}();
  printf("seed %lu\n", static_cast<unsigned long>(seed));
  OverlayModel(seed, std::chrono::milliseconds(4000)).Run<HostLayers>();
}

}  // namespace
}  // namespace moat
