#include "sentry/kernel/pid_namespace.h"

#include <gtest/gtest.h>

namespace moat {
namespace {

class PidNamespaceTest : public testing::Test {
 protected:
  RefPtr<UserNamespace> user_ = UserNamespace::CreateRoot();
  RefPtr<PidNamespace> root_ = PidNamespace::CreateRoot(user_);
  RefPtr<PidNamespace> child_ = PidNamespace::CreateChild(root_, user_).value();
};

TEST_F(PidNamespaceTest, AnInnerProcessHasANumberInEveryOuterNamespace) {
  RefPtr<Pid> outer = root_->Allocate({}).value();
  RefPtr<Pid> inner = child_->Allocate({}).value();
  EXPECT_EQ(outer->nr(), 1);
  EXPECT_EQ(inner->NrIn(*child_), 1);
  EXPECT_EQ(inner->NrIn(*root_), 2);
  EXPECT_EQ(outer->NrIn(*child_), 0);
  EXPECT_EQ(root_->Find(2), inner.get());
  EXPECT_EQ(child_->Find(1), inner.get());
  EXPECT_TRUE(root_->IsAncestorOf(*child_));
  EXPECT_FALSE(child_->IsAncestorOf(*root_));
}

TEST_F(PidNamespaceTest, NumbersAreFreeWhenNothingRefersToThem) {
  RefPtr<Pid> a = root_->Allocate({}).value();
  a->session = reinterpret_cast<Session*>(8);  // only compared with null
  PidNamespace::ReleaseIfUnused(*a);
  EXPECT_EQ(root_->Find(1), a.get());
  a->session = nullptr;
  PidNamespace::ReleaseIfUnused(*a);
  EXPECT_EQ(root_->Find(1), nullptr);
  EXPECT_EQ(root_->Allocate({}).value()->nr(), 2);  // numbers go on upwards
}

TEST_F(PidNamespaceTest, WantedNumbers) {
  RefPtr<Pid> init = child_->Allocate({}).value();
  const int32_t wanted[] = {77, 500};
  RefPtr<Pid> pid = child_->Allocate(wanted).value();
  EXPECT_EQ(pid->NrIn(*child_), 77);
  EXPECT_EQ(pid->NrIn(*root_), 500);
  EXPECT_EQ(child_->Allocate(wanted).error(), kEEXIST);
  // A failed allocation leaves nothing behind.
  const int32_t half[] = {78, 500};
  EXPECT_EQ(child_->Allocate(half).error(), kEEXIST);
  EXPECT_EQ(child_->Find(78), nullptr);
  const int32_t too_many[] = {1, 2, 3};
  EXPECT_EQ(child_->Allocate(too_many).error(), kEINVAL);
}

TEST_F(PidNamespaceTest, ADyingNamespaceTakesNobody) {
  child_->dying = true;
  EXPECT_EQ(child_->Allocate({}).error(), kENOMEM);
  EXPECT_EQ(root_->Allocate({}).value()->nr(), 1);
}

}  // namespace
}  // namespace moat
