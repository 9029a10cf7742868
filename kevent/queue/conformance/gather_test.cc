// SPDX-License-Identifier: Apache-2.0
//
// Sends for the entries of one call, which some engines begin together.
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <random>
#include <string>
#include <vector>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

constexpr int kMany = 150;  // more than are gathered

class GatherTest : public QueueTest {
 protected:
  // A call gives so many entries.
  void TakeTogether(int n) {
    std::vector<PostOp*> posts;
    for (int i = 0; i < n; ++i) {
      posts.push_back(New<PostOp>());
      ASSERT_EQ(0, queue().Post(posts.back()));
    }
    std::array<Entry, 16> entries;
    ASSERT_EQ(n, queue().Enter(entries, Wait()));
  }
  // The copying ring has its own way of it.
  bool Gathers() {
    return GetParam() == "epoll" ||
           (GetParam() == "uring" && queue().sends_by_reference());
  }
  SendOp* NewReply(int fd, std::string_view bytes) {
    SendOp* op = NewSend(fd, bytes);
    op->by_reference = true;
    op->flags = kOpSkipInline;
    return op;
  }
  static bool HasSomething(int peer) {
    char byte;
    return ::recv(peer, &byte, 1, MSG_DONTWAIT | MSG_PEEK) > 0;
  }
};
KEVENT_CONFORMANCE(GatherTest);

TEST_P(GatherTest, OneIsSentAtOnce) {
  if (!Gathers()) GTEST_SKIP() << "this engine does not gather";
  Pair pair = TcpPair();
  for (int entries : {1, 4, 1}) {
    TakeTogether(entries);
    SendOp* send = NewReply(pair.ours, "reply");
    if (entries == 1) {
      EXPECT_EQ(Queue::kDone, Submit(send));
    } else {
      EXPECT_EQ(0, Submit(send));
      EXPECT_FALSE(HasSomething(pair.peer));
      EXPECT_EQ(5, ResultOf(send));
    }
    EXPECT_EQ("reply", PeerRead(pair.peer, 5));
  }
}

TEST_P(GatherTest, SoManyThatSomeBeginAtOnce) {
  std::vector<Pair> pairs;
  std::vector<SendOp*> sends;
  for (int i = 0; i < kMany; ++i) {
    pairs.push_back(TcpPair());
    sends.push_back(NewReply(pairs.back().ours, *Bytes(std::to_string(i))));
  }
  TakeTogether(4);
  int waiting = 0;
  for (SendOp* send : sends) {
    const int r = Submit(send);
    EXPECT_TRUE(r == 0 || r == Queue::kDone) << r;
    waiting += r == 0;
  }
  if (Gathers()) {
    EXPECT_TRUE(HasSomething(pairs.front().peer));
    EXPECT_FALSE(HasSomething(pairs.back().peer));
  }
  WaitFor(static_cast<size_t>(waiting));
  for (int i = 0; i < kMany; ++i) {
    const std::string text = std::to_string(i);
    EXPECT_EQ(text, PeerRead(pairs[i].peer, text.size()));
    EXPECT_FALSE(sends[i]->in_flight());
  }
}

TEST_P(GatherTest, OrderAndLinksHold) {
  Pair pair = TcpPair();
  const std::string& large = *Bytes(Pattern(300 << 10));
  TakeTogether(8);
  SendOp* a = NewSend(pair.ours, "a");
  SendOp* b = NewSend(pair.ours, "b");
  a->link = b;
  MustSubmit(a);
  SendOp* c = NewSend(pair.ours, large);
  MustSubmit(c);
  MustSubmit(NewSend(pair.ours, "d"));
  MustSubmit(New<ShutdownOp>(pair.ours));
  EXPECT_TRUE("ab" + large + "d" == PeerReadToEnd(pair.peer));
  for (const Entry& e : WaitFor(5)) EXPECT_GE(e.result, 0);
}

TEST_P(GatherTest, CancelledBeforeItBegins) {
  Pair pair = TcpPair();
  TakeTogether(4);
  SendOp* first = NewReply(pair.ours, "first");
  SendOp* second = NewReply(pair.ours, "second");
  const bool gathered = Submit(first) == 0 && Submit(second) == 0;
  EXPECT_TRUE(gathered || !Gathers());
  if (!gathered) return;
  ASSERT_EQ(0, queue().Cancel(first));
  const int64_t result = ResultOf(first);
  EXPECT_TRUE(result == -ECANCELED || result == 5) << result;
  if (Gathers()) {
    EXPECT_EQ(-ECANCELED, result);
  }
  EXPECT_EQ(6, ResultOf(second));
  EXPECT_EQ(result == 5 ? "firstsecond" : "second",
            PeerRead(pair.peer, result == 5 ? 11 : 6));
}

TEST_P(GatherTest, ClosedBeforeItBegins) {
  Pair pair = TcpPair();
  TakeTogether(4);
  SendOp* send = NewReply(pair.ours, "reply");
  const int r = Submit(send);
  EXPECT_TRUE(r == 0 || !Gathers());
  EXPECT_EQ(0, CloseByQueue(pair.ours));
  const int64_t result = r == 0 ? ResultOf(send) : 5;
  EXPECT_TRUE(result == -ECANCELED || result == 5) << result;
  EXPECT_EQ(result == 5 ? "reply" : "", PeerReadToEnd(pair.peer));
}

TEST_P(GatherTest, ForgottenWithTheQueue) {
  Pair pair = TcpPair();
  TakeTogether(4);
  SendOp* send = NewReply(pair.ours, "reply");
  const int r = Submit(send);
  EXPECT_TRUE(r == 0 || !Gathers());
  Destroy();
  EXPECT_FALSE(send->in_flight());
}

// Whoever polls it calls when there is something to take, not before.
TEST_P(GatherTest, NotOfAPollableQueue) {
  Pair pair = TcpPair();
  ASSERT_GE(queue().pollable_fd(), 0);
  TakeTogether(4);
  SendOp* send = NewReply(pair.ours, "reply");
  const int r = Submit(send);
  pollfd peer = {pair.peer, POLLIN, 0};
  EXPECT_EQ(1, poll(&peer, 1, static_cast<int>(PatienceNs() / kMs)));
  if (r == 0) {
    EXPECT_EQ(5, ResultOf(send));
  }
  EXPECT_EQ("reply", PeerRead(pair.peer, 5));
}

TEST_P(GatherTest, ThenPolled) {
  Pair pair = TcpPair();
  TakeTogether(4);
  SendOp* send = NewReply(pair.ours, "reply");
  const int r = Submit(send);
  pollfd outside = {queue().pollable_fd(), POLLIN, 0};
  ASSERT_GE(outside.fd, 0);
  if (r == 0) {
    EXPECT_EQ(1, poll(&outside, 1, static_cast<int>(PatienceNs() / kMs)));
    EXPECT_EQ(5, ResultOf(send));
  }
  EXPECT_EQ("reply", PeerRead(pair.peer, 5));
}

TEST_P(GatherTest, OneThatIsFullAndOneWhosePeerIsGone) {
  const std::string& bytes = *Bytes(Pattern(20 << 10));
  std::vector<Pair> pairs;
  for (int i = 0; i < 12; ++i) pairs.push_back(TcpPair());
  Fill(pairs[3].ours);
  ResetPeer(pairs[5].peer);
  CloseOwned(pairs[5].peer);
  TakeTogether(4);
  std::vector<SendOp*> sends;
  for (const Pair& pair : pairs) {
    sends.push_back(NewReply(pair.ours, bytes));
    sends.back()->flags = 0;
    MustSubmit(sends.back());
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (i == 3 || i == 5) continue;
    EXPECT_TRUE(bytes == PeerRead(pairs[i].peer, bytes.size())) << i;
  }
  EXPECT_TRUE(sends[3]->in_flight());
  const int64_t size = static_cast<int64_t>(bytes.size());
  for (const Entry& e : WaitFor(pairs.size() - 1)) {
    if (e.operation == sends[5]) {
      EXPECT_LT(e.result, 0);
    } else {
      EXPECT_EQ(size, e.result);
    }
  }
  std::string text;
  while (sends[3]->in_flight()) {
    const std::string more = PeerRead(pairs[3].peer, 1);
    ASSERT_EQ(1u, more.size());
    text += more;
    char part[64 << 10];
    const ssize_t n = ::recv(pairs[3].peer, part, sizeof part, MSG_DONTWAIT);
    if (n > 0) text.append(part, static_cast<size_t>(n));
    Look();
  }
  EXPECT_EQ(size, ResultOf(sends[3]));
  ASSERT_EQ(0, CloseByQueue(pairs[3].ours));
  text += PeerReadToEnd(pairs[3].peer);
  EXPECT_TRUE(text.ends_with(bytes));
}

// Streams arrive as they were sent, whatever is begun together.
TEST_P(GatherTest, AnyMixture) {
  std::mt19937 random(Seed());
  constexpr size_t kSizes[] = {1,        4000,      6 << 10,  16 << 10,
                               20 << 10, 100 << 10, 131'072, 300 << 10};
  std::vector<const std::string*> texts;
  for (size_t size : kSizes) texts.push_back(Bytes(Pattern(size)));
  std::vector<Pair> pairs;
  for (int i = 0; i < 8; ++i) pairs.push_back(TcpPair(i < 2 ? 16 << 10 : 0));
  for (int turn = 0; turn < 40; ++turn) {
    TakeTogether(4 + static_cast<int>(random() % 4));
    std::vector<std::string> streams(pairs.size());
    size_t submitted = 0;
    for (uint32_t n = 1 + random() % 20; n > 0; --n) {
      const size_t to = random() % pairs.size();
      const std::string& text = *texts[random() % texts.size()];
      SendOp* send = NewReply(pairs[to].ours, text);
      send->by_reference = random() % 4 != 0;
      submitted += Submit(send) == 0;
      streams[to] += text;
    }
    for (size_t i = 0; i < pairs.size(); ++i) {
      ASSERT_TRUE(streams[i] == PeerRead(pairs[i].peer, streams[i].size()))
          << "turn " << turn << ", socket " << i;
    }
    for (const Entry& e : WaitFor(submitted)) EXPECT_GT(e.result, 0);
  }
}

}  // namespace
}  // namespace kevent::conformance
