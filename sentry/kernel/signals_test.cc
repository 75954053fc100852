#include "sentry/kernel/signals.h"

#include <gtest/gtest.h>

#include "sentry/kernel/rlimits.h"

namespace moat {
namespace {

QueuedSignal* Queued(int signo, int value) {
  SigInfo info = MakeSigInfo(signo, SI_QUEUE);
  info.si_value.sival_int = value;
  return new QueuedSignal{info, nullptr, nullptr};
}

TEST(PendingSignals, RealTimeSignalsQueueInOrderAndLowNumbersComeFirst) {
  PendingSignals pending;
  pending.Push(40, Queued(40, 1));
  pending.Push(35, Queued(35, 2));
  pending.Push(40, Queued(40, 3));
  pending.Push(SIGUSR1, Queued(SIGUSR1, 4));
  SigInfo info;
  EXPECT_EQ(pending.Pop({}, &info), SIGUSR1);
  EXPECT_EQ(pending.Pop({}, &info), 35);
  EXPECT_EQ(info.si_value.sival_int, 2);
  EXPECT_EQ(pending.Pop({}, &info), 40);
  EXPECT_EQ(info.si_value.sival_int, 1);
  EXPECT_TRUE(pending.set().Has(40));
  EXPECT_EQ(pending.Pop({}, &info), 40);
  EXPECT_EQ(info.si_value.sival_int, 3);
  EXPECT_TRUE(pending.set().empty());
  EXPECT_EQ(pending.Pop({}, &info), 0);
}

TEST(PendingSignals, FaultsComeBeforeLowerNumbers) {
  PendingSignals pending;
  pending.Push(SIGHUP, Queued(SIGHUP, 0));
  pending.Push(SIGSEGV, Queued(SIGSEGV, 0));
  SigInfo info;
  EXPECT_EQ(pending.Pop({}, &info), SIGSEGV);
  EXPECT_EQ(pending.Pop({}, &info), SIGHUP);
}

TEST(PendingSignals, BlockedOnesStayAndPopOfTakesOnlyTheWanted) {
  PendingSignals pending;
  pending.Push(SIGUSR1, Queued(SIGUSR1, 0));
  pending.Push(SIGUSR2, Queued(SIGUSR2, 0));
  SigInfo info;
  EXPECT_EQ(pending.Pop(SignalSet::Of(SIGUSR1), &info), SIGUSR2);
  EXPECT_EQ(pending.Pop(SignalSet::Of(SIGUSR1), &info), 0);
  EXPECT_EQ(pending.PopOf(SignalSet::Of(SIGUSR1), &info), SIGUSR1);
}

TEST(PendingSignals, ASignalWithoutItsInformationIsStillPending) {
  PendingSignals pending;
  pending.Push(SIGTERM, nullptr);
  EXPECT_TRUE(pending.HasStandard(SIGTERM));
  SigInfo info;
  EXPECT_EQ(pending.Pop({}, &info), SIGTERM);
  EXPECT_EQ(info.si_code, SI_USER);
}

TEST(PendingSignals, RemoveAllGivesTheAccountBack) {
  auto account = MakeRef<UserAccount>(0);
  account->queued_signals = 2;
  PendingSignals pending;
  pending.Push(34, new QueuedSignal{MakeSigInfo(34, SI_QUEUE), account, nullptr});
  pending.Push(SIGINT, new QueuedSignal{MakeSigInfo(SIGINT, SI_USER), account, nullptr});
  pending.RemoveAll(SignalSet::Of(34));
  EXPECT_EQ(account->queued_signals, 1);
  pending.Push(34, Queued(34, 7));
  SigInfo info;
  EXPECT_EQ(pending.Pop({}, &info), SIGINT);
  EXPECT_EQ(account->queued_signals, 0);
  EXPECT_EQ(pending.Pop({}, &info), 34);
}

TEST(SignalActions, ExecveKeepsIgnoredSignalsAndDropsHandlers) {
  SignalActions actions;
  actions.Exchange(SIGINT, {1, 0, 0, 0});
  actions.Exchange(SIGTERM, {0x1000, SA_RESTART, 0, 0});
  actions.ResetHandlers();
  EXPECT_EQ(actions.Get(SIGINT).handler, 1u);
  EXPECT_EQ(actions.Get(SIGTERM).handler, 0u);
  EXPECT_EQ(actions.Get(SIGTERM).flags, 0u);
  EXPECT_TRUE(actions.Ignores(SIGINT));
  EXPECT_TRUE(actions.Ignores(SIGCHLD));
  EXPECT_FALSE(actions.Ignores(SIGTERM));
}

TEST(SignalActions, ResetHandTakesTheHandlerOnce) {
  SignalActions actions;
  actions.Exchange(SIGUSR1, {0x2000, SA_RESETHAND, 0, 0});
  EXPECT_EQ(actions.Take(SIGUSR1).handler, 0x2000u);
  EXPECT_EQ(actions.Get(SIGUSR1).handler, 0u);
}

}  // namespace
}  // namespace moat
