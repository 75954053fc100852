#include <gtest/gtest.h>

#include "platform/cred/credentials.h"

namespace moat {
namespace {

TEST(UserNamespace, RootMapsEveryIdToItself) {
  auto root = UserNamespace::CreateRoot();
  EXPECT_EQ(root->ToKuid(1000), 1000u);
  EXPECT_EQ(root->FromKgid(7), 7u);
  EXPECT_TRUE(root->HasMapping(5, 6));
  EXPECT_FALSE(root->HasMapping(kNoId, 6));
  EXPECT_EQ(root->SetUidMap({{0, 0, 1}}).error(), kEPERM);
}

TEST(UserNamespace, ChildWithoutMapSeesTheOverflowId) {
  auto child = UserNamespace::CreateChild(UserNamespace::CreateRoot(), 1000, 1000).value();
  EXPECT_EQ(child->ToKuid(0), kNoId);
  EXPECT_EQ(child->FromKuid(1000), kOverflowId);
}

TEST(UserNamespace, MapsAreSetOnceAndTranslatedThroughTheParent) {
  auto root = UserNamespace::CreateRoot();
  auto child = UserNamespace::CreateChild(root, 1000, 1000).value();
  ASSERT_TRUE(child->SetUidMap({{0, 100000, 65536}}).ok());
  EXPECT_EQ(child->SetUidMap({{0, 1, 1}}).error(), kEPERM);
  auto grandchild = UserNamespace::CreateChild(child, 100000, 100000).value();
  ASSERT_TRUE(grandchild->SetUidMap({{0, 1000, 10}}).ok());
  EXPECT_EQ(grandchild->ToKuid(3), 101003u);
  EXPECT_EQ(grandchild->FromKuid(101003), 3u);
  EXPECT_EQ(grandchild->FromKuid(100000), kOverflowId);
  auto shown = grandchild->UidMap();
  ASSERT_EQ(shown.size(), 1u);
  EXPECT_EQ(shown[0].outside, 1000u);
}

TEST(UserNamespace, RefusesBadMaps) {
  auto child = UserNamespace::CreateChild(UserNamespace::CreateRoot(), 0, 0).value();
  EXPECT_EQ(child->SetUidMap({}).error(), kEINVAL);
  EXPECT_EQ(child->SetUidMap({{0, 0, 0}}).error(), kEINVAL);
  EXPECT_EQ(child->SetUidMap({{0, 0, 10}, {5, 100, 10}}).error(), kEINVAL);
  EXPECT_EQ(child->SetUidMap({{0, 0, 10}, {50, 5, 10}}).error(), kEINVAL);
  EXPECT_EQ(child->SetUidMap({{0xfffffff0, 0, 0x20}}).error(), kEINVAL);
  auto grandchild = UserNamespace::CreateChild(child, 0, 0).value();
  EXPECT_EQ(grandchild->SetUidMap({{0, 0, 1}}).error(), kEPERM);  // the parent maps nothing
}

TEST(UserNamespace, NestingEndsAtLevel32) {
  auto ns = UserNamespace::CreateRoot();
  for (int i = 0; i < 32; ++i) ns = UserNamespace::CreateChild(ns, 0, 0).value();
  EXPECT_EQ(UserNamespace::CreateChild(ns, 0, 0).error(), kENOSPC);
}

TEST(UserNamespace, SetgroupsIsDeniedBeforeTheGidMapOnly) {
  auto root = UserNamespace::CreateRoot();
  auto a = UserNamespace::CreateChild(root, 0, 0).value();
  EXPECT_FALSE(a->setgroups_allowed());
  ASSERT_TRUE(a->SetGidMap({{0, 0, 1}}).ok());
  EXPECT_TRUE(a->setgroups_allowed());
  EXPECT_EQ(a->DenySetgroups().error(), kEPERM);
  auto b = UserNamespace::CreateChild(root, 0, 0).value();
  ASSERT_TRUE(b->DenySetgroups().ok());
  ASSERT_TRUE(b->SetGidMap({{0, 0, 1}}).ok());
  EXPECT_FALSE(b->setgroups_allowed());
}

TEST(Credentials, RootHasEveryCapabilityInItsNamespaceAndBelow) {
  auto root = UserNamespace::CreateRoot();
  auto cred = Credentials::CreateRoot(root);
  auto child = UserNamespace::CreateChild(root, 1000, 1000).value();
  EXPECT_TRUE(cred->HasCapability(CAP_SYS_ADMIN));
  EXPECT_TRUE(cred->HasCapabilityIn(CAP_CHOWN, *child));
}

TEST(Credentials, OwnerRulesItsChildNamespaceAndNothingElse) {
  auto root = UserNamespace::CreateRoot();
  auto user = Credentials::CreateRoot(root)->Copy();
  user->euid = user->uid = 1000;
  user->effective = CapabilitySet::None();
  auto own = UserNamespace::CreateChild(root, 1000, 1000).value();
  auto grandchild = UserNamespace::CreateChild(own, 0, 0).value();
  auto other = UserNamespace::CreateChild(root, 1001, 1001).value();
  EXPECT_TRUE(user->HasCapabilityIn(CAP_SYS_ADMIN, *own));
  EXPECT_TRUE(user->HasCapabilityIn(CAP_SYS_ADMIN, *grandchild));
  EXPECT_FALSE(user->HasCapabilityIn(CAP_SYS_ADMIN, *other));
  EXPECT_FALSE(user->HasCapabilityIn(CAP_SYS_ADMIN, *root));
  auto inner = Credentials::CreateRoot(own);
  EXPECT_FALSE(inner->HasCapabilityIn(CAP_SYS_ADMIN, *root));
  EXPECT_FALSE(inner->HasCapabilityIn(CAP_SYS_ADMIN, *other));
  EXPECT_TRUE(inner->HasCapabilityIn(CAP_SYS_ADMIN, *grandchild));
}

TEST(Credentials, GroupsAreTheFsgidAndTheSupplementaryOnes) {
  auto cred = Credentials::CreateRoot(UserNamespace::CreateRoot())->Copy();
  cred->fsgid = 5;
  cred->groups = {7, 9};
  EXPECT_TRUE(cred->InGroup(5));
  EXPECT_TRUE(cred->InGroup(9));
  EXPECT_FALSE(cred->InGroup(8));
}

}  // namespace
}  // namespace moat
