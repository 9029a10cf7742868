// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <random>
#include <set>
#include <span>
#include <thread>
#include <vector>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

class InterestTest : public QueueTest {
 protected:
  Handle Watch(int fd, uint32_t events, uint32_t flags = 0,
               uint64_t user_data = 0) {
    Interest interest;
    interest.fd = fd;
    interest.events = events;
    interest.flags = flags;
    interest.user_data = user_data;
    return MustAdd(interest);
  }
  int AddError(Interest interest) {
    Handle handle;
    int r = queue().Add(interest, &handle);
    EXPECT_EQ(handle, Handle());
    return r;
  }
  int Event(unsigned value = 0) {
    return Own(eventfd(value, EFD_CLOEXEC | EFD_NONBLOCK));
  }
  static void Raise(int event) {
    uint64_t one = 1;
    ASSERT_EQ(8, write(event, &one, 8));
  }
  static void Drain(int event) {
    uint64_t value;
    ASSERT_EQ(8, read(event, &value, 8));
  }
  void LookOnly() {
    Wait look;
    look.min = 0;
    EXPECT_EQ(0, queue().Enter({}, look));
  }
  int Gather(std::span<Entry> out, uint32_t min) {
    Wait wait;
    wait.min = min;
    wait.absolute = true;
    wait.timeout_ns = NowNs() + PatienceNs();
    int r;
    do {
      r = queue().Enter(out, wait);
    } while (r == -EINTR);
    return r;
  }
  void ExpectFires(Handle handle, uint32_t events, uint32_t flags) {
    Entry e = One();
    EXPECT_EQ(e.source, Source::kPoll);
    EXPECT_EQ(e.handle, handle);
    EXPECT_EQ(e.events, events);
    EXPECT_EQ(e.flags, flags);
    EXPECT_EQ(e.result, 0);
  }
};
KEVENT_CONFORMANCE(InterestTest);

TEST_P(InterestTest, LevelFiresAsLongAsItIsReady) {
  const int event = Event();
  const Handle handle = Watch(event, POLLIN, 0, 42);
  ExpectNothing();
  Raise(event);
  for (int i = 0; i < 3; ++i) {
    Entry e = One();
    EXPECT_EQ(e.handle, handle);
    EXPECT_EQ(e.user_data, 42u);
    EXPECT_EQ(e.events, uint32_t{POLLIN});
    EXPECT_EQ(e.flags, uint32_t{kEntryMore});
  }
  Drain(event);
  ExpectNothing();
  Raise(event);
  ExpectFires(handle, POLLIN, kEntryMore);
  EXPECT_EQ(0, queue().Remove(handle));
}

TEST_P(InterestTest, LevelHasOneUnreadEntryAtMost) {
  const int event = Event();
  Watch(event, POLLIN);
  for (int i = 0; i < 5; ++i) {
    Raise(event);
    LookOnly();
  }
  Entry out[8];
  EXPECT_EQ(1u, queue().Take(out));
  EXPECT_EQ(0u, queue().Take(out)) << "tested again by Enter only";
  Wait wait;
  EXPECT_EQ(1, queue().Enter(out, wait));
  Drain(event);
}

// It is tested again by the next Enter: one that waits for more entries neither
// takes it once more nor is busy with it.
TEST_P(InterestTest, LevelIsTakenOnceByOneEnter) {
  const int event = Event(1);
  const Handle handle = Watch(event, POLLIN);
  // Beside operations an engine may have other means.
  const Pair pair = TcpPair();
  RecvOp* recv = NewRecv(pair.ours, Room(1));
  MustSubmit(recv);
  const Handle beside = Watch(pair.ours, POLLOUT);
  Watch(pair.ours, POLLIN);  // not ready
  Interest timer;
  timer.source = Source::kTimer;
  // Once more if the kernel has interrupted it.
  auto enter = [&](Wait wait, size_t n) {
    std::vector<Entry> out(8);
    for (;;) {
      const int64_t start = NowNs();
      const int r = queue().Enter(out, wait);
      std::set<uint32_t> indices;
      for (int k = 0; k < r; ++k) indices.insert(out[k].handle.index);
      EXPECT_EQ(static_cast<int>(indices.size()), r) << "one of them twice";
      const bool timed_out =
          wait.timeout_ns >= 0 && NowNs() - start >= wait.timeout_ns;
      if (r < 0 || (!timed_out && static_cast<size_t>(r) < n)) continue;
      EXPECT_EQ(static_cast<size_t>(r), n);
      return indices;
    }
  };
  for (int i = 0; i < 3; ++i) {
    timer.first_ns = 20 * kMs;
    const Handle late = MustAdd(timer);
    const uint64_t waits = queue().stats().waits;
    Wait wait;
    wait.min = 3;
    EXPECT_EQ(enter(wait, 3),
              (std::set<uint32_t>{handle.index, beside.index, late.index}));
    wait.min = 4;
    wait.timeout_ns = 20 * kMs;
    EXPECT_EQ(enter(wait, 2), (std::set<uint32_t>{handle.index, beside.index}));
    EXPECT_LT(queue().stats().waits - waits, 100u);
  }
  // What is not ready when the next one begins is not told of.
  Drain(event);
  EXPECT_EQ(0, queue().Remove(beside));
  ExpectNothing();
  Raise(event);
  ExpectFires(handle, POLLIN, kEntryMore);
  Drain(event);
  EXPECT_EQ(0, queue().Cancel(recv));
  EXPECT_EQ(-ECANCELED, ResultOf(recv));
}

// Until the thread that took it returns nobody else is given it either.
TEST_P(InterestTest, LevelIsHeldByTheEnterThatWaits) {
  Queue::Options options;
  options.sharing = Queue::Sharing::kManyThreads;
  Reopen(options);
  const int event = Event(1);
  const Handle handle = Watch(event, POLLIN);
  PostOp* post = New<PostOp>();
  std::thread waiter([&] {
    Entry out[8];
    Wait wait;
    wait.min = 2;
    int r;
    do {  // the kernel may interrupt it
      r = queue().Enter(out, wait);
    } while (r < 2);
    EXPECT_EQ(r, 2);
    EXPECT_EQ(out[0].handle, handle);
    EXPECT_EQ(out[1].operation, post);
  });
  const int64_t end = NowNs() + PatienceNs();
  while (queue().stats().entries == 0 && NowNs() < end) Spin(100);
  Entry out[8];
  Wait wait;
  wait.timeout_ns = 20 * kMs;
  EXPECT_LE(queue().Enter(out, wait), 0);
  EXPECT_EQ(0, queue().Post(post));
  waiter.join();
  ExpectFires(handle, POLLIN, kEntryMore);
  Drain(event);
}

TEST_P(InterestTest, EdgeFiresForEachChange) {
  const int event = Event();
  const Handle handle = Watch(event, POLLIN, kEdge);
  for (int i = 0; i < 3; ++i) {
    Raise(event);
    ExpectFires(handle, POLLIN, kEntryMore);
    ExpectNothing();
    if (i == 1) Drain(event);
  }
}

TEST_P(InterestTest, ListsInterestsPieceByPiece) {
  std::vector<Handle> handles;
  for (int i = 0; i < 7; ++i) {
    handles.push_back(Watch(Event(), POLLIN, i == 2 ? uint32_t{kEdge} : 0));
  }
  Interest timer;
  timer.source = Source::kTimer;
  timer.first_ns = timer.interval_ns = 3600 * 1000 * kMs;
  handles.push_back(MustAdd(timer));
  ASSERT_EQ(0, queue().Remove(handles[4]));
  handles.erase(handles.begin() + 4);

  std::vector<InterestInfo> all;
  uint32_t index = 0;
  for (int calls = 0; index != UINT32_MAX; ++calls) {
    ASSERT_LT(calls, 100);
    std::array<InterestInfo, 2> some;
    const size_t n = queue().ListInterests(&index, some);
    all.insert(all.end(), some.begin(), some.begin() + n);
  }
  ASSERT_EQ(all.size(), handles.size());
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].handle, handles[i]);
    EXPECT_FALSE(all[i].unread);
  }
  EXPECT_EQ(all[2].flags, uint32_t{kEdge});
  EXPECT_EQ(all[2].events, uint32_t{POLLIN});
  EXPECT_EQ(all.back().source, Source::kTimer);
  EXPECT_EQ(all.back().interval_ns, 3600 * 1000 * kMs);
  std::array<InterestInfo, 1> none;
  EXPECT_EQ(queue().ListInterests(&index, none), 0u);
}

TEST_P(InterestTest, EdgeFiresForWhatIsReadyAlready) {
  const Handle handle = Watch(Event(1), POLLIN, kEdge);
  ExpectFires(handle, POLLIN, kEntryMore);
  ExpectNothing();
}

TEST_P(InterestTest, OneShotFiresOnceAndIsGone) {
  const int event = Event();
  const Handle handle = Watch(event, POLLIN, kOneShot);
  Raise(event);
  ExpectFires(handle, POLLIN, 0);
  Raise(event);
  ExpectNothing();
  EXPECT_EQ(-ENOENT, queue().Remove(handle));
  EXPECT_EQ(queue().stats().interests, 0u);
  // Another one on the same descriptor.
  const Handle again = Watch(event, POLLIN, kOneShot | kEdge);
  EXPECT_NE(again, handle);
  ExpectFires(again, POLLIN, 0);
  ExpectNothing();
}

TEST_P(InterestTest, DispatchIsSilentUntilEnabled) {
  const int event = Event();
  const Handle handle = Watch(event, POLLIN, kDispatch);
  Raise(event);
  for (int i = 0; i < 3; ++i) {
    ExpectFires(handle, POLLIN, kEntryMore);
    Raise(event);
    ExpectNothing();
    EXPECT_EQ(0, queue().Enable(handle));
  }
  ExpectFires(handle, POLLIN, kEntryMore);
  Drain(event);
  EXPECT_EQ(0, queue().Enable(handle));
  ExpectNothing();
  Raise(event);
  ExpectFires(handle, POLLIN, kEntryMore);
}

TEST_P(InterestTest, DisabledMakesNoEntry) {
  for (uint32_t flags : {uint32_t{0}, uint32_t{kEdge}, uint32_t{kOneShot},
                         uint32_t{kDispatch}}) {
    SCOPED_TRACE(flags);
    const int event = Event();
    const Handle handle = Watch(event, POLLIN, kDisabled | flags);
    Raise(event);
    ExpectNothing();
    EXPECT_EQ(0, queue().Enable(handle));
    EXPECT_EQ(0, queue().Enable(handle));
    LookOnly();
    // Its entry is unread: it is not taken any more.
    EXPECT_EQ(0, queue().Disable(handle));
    EXPECT_EQ(0, queue().Disable(handle));
    ExpectNothing();
    EXPECT_EQ(0, queue().Modify(handle, POLLIN, flags));
    EXPECT_EQ(One().handle, handle);
    queue().Remove(handle);
  }
}

TEST_P(InterestTest, LevelEnabledAgainIsTestedAnew) {
  const int event = Event();
  const Handle handle = Watch(event, POLLIN);
  Raise(event);
  LookOnly();
  EXPECT_EQ(0, queue().Disable(handle));
  ExpectNothing();
  EXPECT_EQ(0, queue().Enable(handle));
  ExpectFires(handle, POLLIN, kEntryMore);
  EXPECT_EQ(0, queue().Disable(handle));
  Drain(event);
  EXPECT_EQ(0, queue().Enable(handle));
  ExpectNothing();
}

TEST_P(InterestTest, ModifyReplacesEventsAndFlags) {
  Pair pair = TcpPair();
  const Handle handle = Watch(pair.ours, POLLIN);
  ExpectNothing();
  EXPECT_EQ(0, queue().Modify(handle, POLLOUT, kEdge));
  ExpectFires(handle, POLLOUT, kEntryMore);
  ExpectNothing();
  EXPECT_EQ(0, queue().Modify(handle, POLLIN | POLLOUT, kEdge));
  ExpectFires(handle, POLLOUT, kEntryMore);
  EXPECT_EQ(0, queue().Modify(handle, POLLIN, 0));
  ExpectNothing();
  PeerSend(pair.peer, "x");
  ExpectFires(handle, POLLIN, kEntryMore);
  EXPECT_EQ(0, queue().Modify(handle, POLLIN, kOneShot));
  ExpectFires(handle, POLLIN, 0);
  EXPECT_EQ(-ENOENT, queue().Modify(handle, POLLIN, 0));
}

TEST_P(InterestTest, ModifyWithdrawsTheUnreadEntry) {
  Pair pair = TcpPair();
  const Handle handle = Watch(pair.ours, POLLOUT, kEdge);
  LookOnly();
  LookOnly();
  EXPECT_EQ(0, queue().Modify(handle, POLLIN, kEdge));
  ExpectNothing();
  PeerSend(pair.peer, "x");
  ExpectFires(handle, POLLIN, kEntryMore);
  // A one-shot whose only entry is unread lives on.
  const int event = Event(1);
  const Handle once = Watch(event, POLLIN, kOneShot);
  LookOnly();
  LookOnly();
  EXPECT_EQ(0, queue().Modify(once, POLLIN, kOneShot));
  ExpectFires(once, POLLIN, 0);
}

TEST_P(InterestTest, LastCheckDropsWhatIsNotReadyAnyMore) {
  for (uint32_t flags : {uint32_t{0}, uint32_t{kEdge}, uint32_t{kOneShot},
                         uint32_t{kDispatch}}) {
    SCOPED_TRACE(flags);
    const int event = Event();
    const Handle handle = Watch(event, POLLIN, kLastCheck | flags);
    Raise(event);
    LookOnly();
    LookOnly();
    Drain(event);
    ExpectNothing();
    Raise(event);
    ExpectFires(handle, POLLIN, flags & kOneShot ? 0u : uint32_t{kEntryMore});
    Drain(event);
    ExpectNothing();
    queue().Remove(handle);
  }
}

TEST_P(InterestTest, LastCheckAmongSignals) {
  const int event = Event();
  Watch(event, POLLIN, kLastCheck);
  SignalStorm storm;
  int found = 0;
  const int64_t end = NowNs() + 300 * kMs;
  while (found == 0 && NowNs() < end) {
    Raise(event);
    Gather({}, 0);
    Drain(event);
    Entry e;
    found = Gather({&e, 1}, 0);
  }
  EXPECT_EQ(found, 0);
}

TEST_P(InterestTest, RemovedMakesNoEntry) {
  const int event = Event();
  for (uint32_t flags : {uint32_t{0}, uint32_t{kEdge}, uint32_t{kOneShot}}) {
    SCOPED_TRACE(flags);
    const Handle handle = Watch(event, POLLIN, flags);
    EXPECT_EQ(0, queue().Remove(handle));
    Raise(event);
    ExpectNothing();
    EXPECT_EQ(-ENOENT, queue().Remove(handle));
    Drain(event);
  }
}

TEST_P(InterestTest, RemovedWithItsEntryUnread) {
  for (uint32_t flags : {uint32_t{0}, uint32_t{kEdge}, uint32_t{kOneShot},
                         uint32_t{kDispatch}}) {
    SCOPED_TRACE(flags);
    const Handle handle = Watch(Event(1), POLLIN, flags, 1);
    LookOnly();
    LookOnly();
    EXPECT_EQ(0, queue().Remove(handle));
    // The next tenant of its slot does not get the old one's entry.
    const int quiet = Event();
    const Handle next = Watch(quiet, POLLIN, kEdge, 2);
    EXPECT_NE(handle, next);
    ExpectNothing();
    Raise(quiet);
    Entry e = One();
    EXPECT_EQ(e.user_data, 2u);
    EXPECT_EQ(e.handle, next);
    EXPECT_EQ(0, queue().Remove(next));
  }
}

TEST_P(InterestTest, StaleHandlesAreRefused) {
  const int event = Event();
  const Handle old = Watch(event, POLLIN);
  EXPECT_EQ(0, queue().Remove(old));
  const Handle fresh = Watch(event, POLLIN);
  for (Handle handle :
       {old, Handle(), Handle{old.index, old.generation + 1}, Handle{~0u, 1}}) {
    if (handle == fresh) continue;
    EXPECT_EQ(-ENOENT, queue().Remove(handle));
    EXPECT_EQ(-ENOENT, queue().Modify(handle, POLLIN, 0));
    EXPECT_EQ(-ENOENT, queue().Enable(handle));
    EXPECT_EQ(-ENOENT, queue().Disable(handle));
    EXPECT_EQ(-ENOENT, queue().SetTimer(handle, 1, 0, false));
  }
  Raise(event);
  ExpectFires(fresh, POLLIN, kEntryMore);
  EXPECT_EQ(0, queue().Remove(fresh));
}

TEST_P(InterestTest, HandlesAreNeverReused) {
  const int event = Event();
  std::set<std::pair<uint32_t, uint32_t>> seen;
  for (int i = 0; i < 1000; ++i) {
    const Handle handle = Watch(event, POLLIN, i % 2 ? uint32_t{kEdge} : 0u);
    EXPECT_TRUE(seen.insert({handle.index, handle.generation}).second);
    EXPECT_EQ(0, queue().Remove(handle));
  }
}

TEST_P(InterestTest, TwoOnOneDescriptor) {
  Pair pair = TcpPair();
  const Handle in = Watch(pair.ours, POLLIN, kEdge, 1);
  const Handle out = Watch(pair.ours, POLLOUT, kDispatch, 2);
  ExpectFires(out, POLLOUT, kEntryMore);
  ExpectNothing();
  PeerSend(pair.peer, "x");
  ExpectFires(in, POLLIN, kEntryMore);
  EXPECT_EQ(0, queue().Remove(in));
  EXPECT_EQ(0, queue().Enable(out));
  ExpectFires(out, POLLOUT, kEntryMore);
  // Level and edge of the same events.
  const Handle level = Watch(pair.ours, POLLIN, 0, 3);
  const Handle edge = Watch(pair.ours, POLLIN, kEdge, 4);
  std::set<uint64_t> seen;
  for (const Entry& e : WaitFor(2)) seen.insert(e.user_data);
  EXPECT_EQ(seen, (std::set<uint64_t>{3, 4}));
  ExpectFires(level, POLLIN, kEntryMore);
  EXPECT_EQ(0, queue().Remove(level));
  ExpectNothing();
  PeerSend(pair.peer, "y");
  ExpectFires(edge, POLLIN, kEntryMore);
}

TEST_P(InterestTest, BesideOperationsOfTheSameDescriptor) {
  Pair pair = TcpPair();
  // The descriptor has had an operation before it gets interests.
  SendOp* send = NewSend(pair.ours, "x");
  RecvOp* recv = NewRecv(pair.ours, Room(1));
  MustSubmit(recv);
  PeerSend(pair.peer, "1");
  EXPECT_EQ(1, ResultOf(recv));
  const Handle level = Watch(pair.ours, POLLIN);
  const Handle hang_up = Watch(pair.ours, POLLRDHUP, kEdge);
  ExpectNothing();
  PeerSend(pair.peer, "2");
  // Level: again and again, though the descriptor is busy.
  for (int i = 0; i < 3; ++i) {
    ExpectFires(level, POLLIN, kEntryMore);
    MustSubmit(send);
    Entry e = One();
    if (e.operation != send) e = One();
    EXPECT_EQ(e.operation, send);
  }
  EXPECT_EQ(0, queue().Disable(level));
  MustSubmit(recv);
  EXPECT_EQ(1, ResultOf(recv));
  EXPECT_EQ(0, queue().Enable(level));
  ExpectNothing();
  EXPECT_EQ("xxx", PeerRead(pair.peer, 3));
  EXPECT_EQ(0, queue().Disable(level));
  ASSERT_EQ(0, shutdown(pair.peer, SHUT_WR));
  ExpectFires(hang_up, POLLRDHUP, kEntryMore);
  MustSubmit(recv);
  EXPECT_EQ(0, ResultOf(recv));
}

TEST_P(InterestTest, OperationThatConsumesWhatALevelInterestSaw) {
  Pair pair = TcpPair();
  const Handle level = Watch(pair.ours, POLLIN);
  RecvOp* recv = NewRecv(pair.ours, Room(1));
  for (int i = 0; i < 20; ++i) {
    MustSubmit(recv);
    PeerSend(pair.peer, "x");
    bool received = false;
    EXPECT_TRUE(RunUntil([&] {
      for (const Entry& e : taken_) received |= e.operation == recv;
      taken_.clear();
      return received;
    }));
    EXPECT_EQ(0, queue().Modify(level, POLLIN, 0));
    ExpectNothing(kMs);
  }
}

TEST_P(InterestTest, ManyOnOneDescriptor) {
  const int event = Event();
  std::vector<Handle> handles;
  for (uint64_t i = 0; i < 20; ++i) {
    handles.push_back(Watch(event, POLLIN, kEdge, i));
  }
  for (size_t i = 0; i < handles.size(); i += 2) {
    EXPECT_EQ(0, queue().Remove(handles[i]));
  }
  Raise(event);
  std::set<uint64_t> seen;
  for (const Entry& e : WaitFor(10)) seen.insert(e.user_data);
  EXPECT_EQ(seen.size(), 10u);
  for (uint64_t id : seen) EXPECT_EQ(id % 2, 1u);
  ExpectNothing();
}

TEST_P(InterestTest, EachLevelIsTestedForItself) {
  Pair pair = TcpPair();
  const int event = Event(1);
  Watch(event, POLLIN, kEdge);
  One();
  // So many that it has woken the wait before all of them are checked.
  for (int i = 0; i < 300; ++i) Watch(pair.ours, POLLIN, kLastCheck, 1);
  std::mt19937 random(Seed());
  for (int i = 0; i < 100; ++i) {
    const Handle writable = Watch(pair.ours, POLLOUT, 0, 2);
    LookOnly();
    const Handle beside_an_edge = Watch(event, POLLIN, 0, 3);
    // The wait has these two. What fires meanwhile is, with luck, drained
    // before its last check, and then the wait ends.
    const uint32_t a_little = random() % 100'000;
    std::thread other([&] {
      Spin(300'000);
      char byte = 'x';
      if (send(pair.peer, &byte, 1, 0) != 1) return;
      Spin(a_little);
      while (recv(pair.ours, &byte, 1, MSG_DONTWAIT) < 0) {
      }
      queue().Wake();
    });
    std::vector<Entry> out(3);
    const int n = Gather(out, 3);
    EXPECT_GE(n, 2);
    other.join();
    out.assign(2, Entry());
    ASSERT_EQ(2, Gather(out, 2)) << "round " << i;
    EXPECT_EQ(5u, out[0].user_data + out[1].user_data) << "round " << i;
    queue().Remove(writable);
    queue().Remove(beside_an_edge);
    if (n == 3) Turn();  // It ended before the other thread woke it.
  }
}

TEST_P(InterestTest, MoreLevelsThanDescriptorsAreAllowed) {
  rlimit limit;
  ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
  const rlimit lower = {100, limit.rlim_max};
  const int event = Event(1);
  // Beside an edge the kernel does not test them by itself.
  Watch(event, POLLIN, kEdge);
  for (int i = 0; i < 200; ++i) Watch(event, POLLIN);
  ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &lower));
  std::vector<Entry> out(201);
  EXPECT_EQ(201, Gather(out, 201));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(200, Gather(out, 200));
  Drain(event);
  EXPECT_EQ(0, Gather(out, 0));
  ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
}

TEST_P(InterestTest, Pipes) {
  auto [out, in] = Pipe();
  const Handle readable = Watch(out, POLLIN, 0, 1);
  const Handle writable = Watch(in, POLLOUT, kEdge, 2);
  ExpectFires(writable, POLLOUT, kEntryMore);
  ASSERT_EQ(1, write(in, "x", 1));
  ExpectFires(readable, POLLIN, kEntryMore);
  char byte;
  ASSERT_EQ(1, read(out, &byte, 1));
  EXPECT_EQ(0, CloseByQueue(in));
  ExpectFires(readable, POLLHUP, kEntryMore);
  EXPECT_EQ(0, queue().Remove(readable));
}

TEST_P(InterestTest, HangUpCountsWithoutBeingAskedFor) {
  auto [out, in] = Pipe();
  const Handle handle = Watch(out, 0, kOneShot);
  ASSERT_EQ(1, write(in, "x", 1));
  ExpectNothing();
  CloseOwned(in);
  ExpectFires(handle, POLLHUP, 0);
}

TEST_P(InterestTest, BrokenPipe) {
  auto [out, in] = Pipe();
  const Handle handle = Watch(in, 0, kOneShot);
  ExpectNothing();
  CloseOwned(out);
  ExpectFires(handle, POLLERR, 0);
}

TEST_P(InterestTest, Sockets) {
  TestListener listener = Listen();
  const Handle connection = Watch(listener.fd, POLLIN, kDispatch);
  ExpectNothing();
  const int peer = ConnectTo(listener);
  ExpectFires(connection, POLLIN, kEntryMore);
  const int ours = Own(accept(listener.fd, nullptr, nullptr));
  const Handle handle = Watch(ours, POLLIN | POLLRDHUP | POLLPRI, kDispatch);
  PeerSend(peer, "x");
  ExpectFires(handle, POLLIN, kEntryMore);
  char byte;
  ASSERT_EQ(1, recv(ours, &byte, 1, 0));
  EXPECT_EQ(0, queue().Enable(handle));
  ASSERT_EQ(1, send(peer, "!", 1, MSG_OOB));
  ExpectFires(handle, POLLPRI, kEntryMore);
  ASSERT_EQ(1, recv(ours, &byte, 1, MSG_OOB));
  ASSERT_EQ(0, shutdown(peer, SHUT_WR));
  EXPECT_EQ(0, queue().Enable(handle));
  Entry e = One();
  EXPECT_EQ(e.events, uint32_t{POLLIN | POLLRDHUP});
}

TEST_P(InterestTest, TimerDescriptors) {
  const int timer = Own(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  itimerspec spec = {{0, 0}, {0, 5'000'000}};
  const Handle handle = Watch(timer, POLLIN, kOneShot);
  ASSERT_EQ(0, timerfd_settime(timer, 0, &spec, nullptr));
  ExpectFires(handle, POLLIN, 0);
}

TEST_P(InterestTest, RefusesWhatCannotBeWatched) {
  Interest interest;
  interest.events = POLLIN;
  EXPECT_EQ(-EBADF, AddError(interest));
  interest.fd = Pipe().first;
  CloseOwned(interest.fd);
  EXPECT_EQ(-EBADF, AddError(interest));
  interest.fd = File("regular");
  EXPECT_EQ(-EPERM, AddError(interest));
  interest.fd = Own(open("/", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(-EPERM, AddError(interest));
  interest.fd = Event();
  interest.events = 1u << 20;
  EXPECT_EQ(-EINVAL, AddError(interest));
  interest.events = POLLIN;
  interest.flags = 1u << 30;
  EXPECT_EQ(-EINVAL, AddError(interest));
  interest.flags = 0;
  interest.source = Source::kOperation;
  EXPECT_EQ(-EINVAL, AddError(interest));
  EXPECT_EQ(queue().stats().interests, 0u);
  const Handle handle = Watch(interest.fd, POLLIN);
  EXPECT_EQ(-EINVAL, queue().Modify(handle, 1u << 20, 0));
  EXPECT_EQ(-EINVAL, queue().Modify(handle, POLLIN, 1u << 30));
  EXPECT_EQ(-EINVAL, queue().SetTimer(handle, 1, 0, false));
}

TEST_P(InterestTest, RefusesAboveTheLimitOfInterests) {
  Queue::Options options;
  options.max_interests = 3;
  Reopen(options);
  const int event = Event();
  std::vector<Handle> handles;
  for (int i = 0; i < 3; ++i) handles.push_back(Watch(event, POLLIN));
  Interest interest;
  interest.fd = event;
  interest.events = POLLIN;
  EXPECT_EQ(-ENOSPC, AddError(interest));
  EXPECT_EQ(0, queue().Remove(handles[0]));
  Watch(event, POLLIN);
}

TEST_P(InterestTest, QueuesCanWatchEachOther) {
  // The descriptor of another queue is a file like any other.
  auto inner = Create({});
  ASSERT_TRUE(inner.ok());
  const int fd = (*inner)->pollable_fd();
  ASSERT_GE(fd, 0);
  const Handle handle = Watch(fd, POLLIN, kOneShot);
  ExpectNothing();
  PostOp post;
  EXPECT_EQ(0, (*inner)->Post(&post));
  ExpectFires(handle, POLLIN, 0);
  Entry e;
  Wait wait;
  EXPECT_EQ(1, (*inner)->Enter({&e, 1}, wait));
}

}  // namespace
}  // namespace kevent::conformance
