// SPDX-License-Identifier: Apache-2.0
//
// Sends for the entries of one call, which some engines begin together, in a
// bunch.
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <iterator>
#include <list>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

constexpr int kMany = 150;  // more than a bunch

class BunchTest : public QueueTest {
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
  bool Bunches() {
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
KEVENT_CONFORMANCE(BunchTest);

TEST_P(BunchTest, OneIsSentAtOnce) {
  if (!Bunches()) GTEST_SKIP() << "this engine makes no bunches";
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

TEST_P(BunchTest, SoManyThatSomeBeginAtOnce) {
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
  if (Bunches()) {
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

TEST_P(BunchTest, OrderAndLinksHold) {
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

TEST_P(BunchTest, CancelledBeforeItBegins) {
  Pair pair = TcpPair();
  TakeTogether(4);
  SendOp* first = NewReply(pair.ours, "first");
  SendOp* second = NewReply(pair.ours, "second");
  const bool bunched = Submit(first) == 0 && Submit(second) == 0;
  EXPECT_TRUE(bunched || !Bunches());
  if (!bunched) return;
  ASSERT_EQ(0, queue().Cancel(first));
  const int64_t result = ResultOf(first);
  EXPECT_TRUE(result == -ECANCELED || result == 5) << result;
  if (Bunches()) {
    EXPECT_EQ(-ECANCELED, result);
  }
  EXPECT_EQ(6, ResultOf(second));
  EXPECT_EQ(result == 5 ? "firstsecond" : "second",
            PeerRead(pair.peer, result == 5 ? 11 : 6));
}

TEST_P(BunchTest, ClosedBeforeItBegins) {
  Pair pair = TcpPair();
  TakeTogether(4);
  SendOp* send = NewReply(pair.ours, "reply");
  const int r = Submit(send);
  EXPECT_TRUE(r == 0 || !Bunches());
  EXPECT_EQ(0, CloseByQueue(pair.ours));
  const int64_t result = r == 0 ? ResultOf(send) : 5;
  EXPECT_TRUE(result == -ECANCELED || result == 5) << result;
  EXPECT_EQ(result == 5 ? "reply" : "", PeerReadToEnd(pair.peer));
}

TEST_P(BunchTest, ForgottenWithTheQueue) {
  Pair pair = TcpPair();
  TakeTogether(4);
  SendOp* send = NewReply(pair.ours, "reply");
  const int r = Submit(send);
  EXPECT_TRUE(r == 0 || !Bunches());
  Destroy();
  EXPECT_FALSE(send->in_flight());
}

// Whoever polls it calls when there is something to take, not before.
TEST_P(BunchTest, NotOfAPollableQueue) {
  Pair pair = TcpPair();
  ASSERT_GE(queue().pollable_fd(), 0);
  TakeTogether(4);
  SendOp* send = NewReply(pair.ours, "reply");
  const int r = Submit(send);
  if (GetParam() == "epoll") {
    EXPECT_EQ(Queue::kDone, r);
  }
  pollfd peer = {pair.peer, POLLIN, 0};
  EXPECT_EQ(1, poll(&peer, 1, static_cast<int>(PatienceNs() / kMs)));
  if (r == 0) {
    EXPECT_EQ(5, ResultOf(send));
  }
  EXPECT_EQ("reply", PeerRead(pair.peer, 5));
}

TEST_P(BunchTest, ThenPolled) {
  Pair pair = TcpPair();
  TakeTogether(4);
  SendOp* send = NewReply(pair.ours, "reply");
  const int r = Submit(send);
  EXPECT_TRUE(r == 0 || !Bunches());
  pollfd outside = {queue().pollable_fd(), POLLIN, 0};
  ASSERT_GE(outside.fd, 0);
  if (r == 0) {
    EXPECT_EQ(1, poll(&outside, 1, static_cast<int>(PatienceNs() / kMs)));
    EXPECT_EQ(5, ResultOf(send));
  }
  EXPECT_EQ("reply", PeerRead(pair.peer, 5));
}

TEST_P(BunchTest, CompletionsMakeNoFurther) {
  if (!Bunches()) GTEST_SKIP() << "this engine makes no bunches";
  Pair pair = TcpPair();
  TakeTogether(4);
  for (int i = 0; i < 4; ++i) MustSubmit(NewReply(pair.ours, "reply"));
  WaitFor(4);
  EXPECT_EQ(Queue::kDone, Submit(NewReply(pair.ours, "reply")));
  EXPECT_EQ(25u, PeerRead(pair.peer, 25).size());
}

TEST_P(BunchTest, ARefusedCallLeavesItAsItWas) {
  if (!Bunches()) GTEST_SKIP() << "this engine makes no bunches";
  Pair pair = TcpPair();
  TakeTogether(4);
  Wait wait;
  wait.clock = -1;
  Entry entry;
  EXPECT_EQ(-EINVAL, queue().Enter({&entry, 1}, wait));
  EXPECT_EQ(0, Submit(NewReply(pair.ours, "a"))) << "refused: as it was";
  One();
  EXPECT_EQ(Queue::kDone, Submit(NewReply(pair.ours, "b")));
  EXPECT_EQ("ab", PeerRead(pair.peer, 2));
}

TEST_P(BunchTest, OneThatIsFullAndOneWhosePeerIsGone) {
  constexpr int64_t kSize = 20 << 10;
  std::vector<Pair> pairs;
  std::vector<const std::string*> texts;
  for (uint32_t i = 0; i < 12; ++i) {
    pairs.push_back(TcpPair());
    texts.push_back(Bytes(Pattern(kSize, i)));
  }
  Fill(pairs[3].ours);
  ResetPeer(pairs[5].peer);
  CloseOwned(pairs[5].peer);
  TakeTogether(4);
  std::vector<SendOp*> sends;
  for (size_t i = 0; i < pairs.size(); ++i) {
    sends.push_back(NewReply(pairs[i].ours, *texts[i]));
    sends.back()->flags = 0;
    MustSubmit(sends.back());
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (i == 3 || i == 5) continue;
    EXPECT_TRUE(*texts[i] == PeerRead(pairs[i].peer, kSize)) << i;
  }
  EXPECT_TRUE(sends[3]->in_flight());
  for (const Entry& e : WaitFor(pairs.size() - 1)) {
    if (e.operation == sends[5]) {
      EXPECT_LT(e.result, 0);
    } else {
      EXPECT_EQ(kSize, e.result);
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
  EXPECT_EQ(kSize, ResultOf(sends[3]));
  ASSERT_EQ(0, CloseByQueue(pairs[3].ours));
  text += PeerReadToEnd(pairs[3].peer);
  EXPECT_TRUE(text.ends_with(*texts[3]));
}

TEST_P(BunchTest, MoreThanThePipeHolds) {
  std::vector<Pair> pairs;
  std::vector<const std::string*> texts;
  TakeTogether(4);
  for (uint32_t i = 0; i < 64; ++i) {
    pairs.push_back(TcpPair(i % 7 == 0 ? 16 << 10 : 0));
    texts.push_back(Bytes(Pattern(100 << 10, i)));
    SendOp* send = NewReply(pairs.back().ours, *texts.back());
    send->flags = 0;
    MustSubmit(send);
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    EXPECT_TRUE(*texts[i] == PeerRead(pairs[i].peer, texts[i]->size())) << i;
  }
  for (const Entry& e : WaitFor(pairs.size())) EXPECT_EQ(100 << 10, e.result);
}

TEST_P(BunchTest, MemoryThatIsNotThere) {
  constexpr int64_t kSize = 20 << 10;
  std::vector<Pair> pairs;
  std::vector<SendOp*> sends;
  std::vector<const std::string*> texts;
  TakeTogether(4);
  for (uint32_t i = 0; i < 8; ++i) {
    pairs.push_back(TcpPair());
    texts.push_back(Bytes(Pattern(kSize, i)));
    // The first page of memory belongs to nobody.
    sends.push_back(NewReply(
        pairs[i].ours,
        i == 4 ? std::string_view(reinterpret_cast<const char*>(16), kSize)
               : *texts[i]));
    sends.back()->flags = 0;
    MustSubmit(sends.back());
  }
  for (const Entry& e : WaitFor(sends.size())) {
    EXPECT_EQ(e.operation == sends[4] ? -EFAULT : kSize, e.result);
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (i == 4) continue;
    EXPECT_TRUE(*texts[i] == PeerRead(pairs[i].peer, kSize)) << i;
  }
}

// Streams arrive as they were sent, whatever is begun together.
TEST_P(BunchTest, AnyMixture) {
  std::mt19937 random(Seed());
  constexpr size_t kSizes[] = {1,        4000,      6 << 10, 16 << 10,
                               20 << 10, 100 << 10, 131'072, 300 << 10};
  // Each send has a text of its own, of which no other begins at its place.
  const std::string& pattern = *Bytes(Pattern(600 << 10, random()));
  std::vector<Pair> pairs;
  for (int i = 0; i < 8; ++i) pairs.push_back(TcpPair(i < 2 ? 16 << 10 : 0));
  for (int turn = 0; turn < 40; ++turn) {
    TakeTogether(4 + static_cast<int>(random() % 4));
    std::vector<std::string> streams(pairs.size());
    std::list<std::array<iovec, 2>> pieces;
    size_t submitted = 0;
    for (uint32_t n = 1 + random() % 20; n > 0; --n) {
      const size_t to = random() % pairs.size();
      const std::string_view text = std::string_view(pattern).substr(
          random() % (300 << 10), kSizes[random() % std::size(kSizes)]);
      SendOp* send = NewReply(pairs[to].ours, text);
      send->by_reference = random() % 4 != 0;
      if (random() % 4 == 0) {
        char* begin = const_cast<char*>(text.data());
        const size_t half = text.size() / 2;
        send->pieces = pieces.emplace_back(std::array<iovec, 2>{
            {{begin, half}, {begin + half, text.size() - half}}});
      }
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
