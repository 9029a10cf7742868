// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

class SendfileTest : public QueueTest {
 protected:
  static std::span<const std::byte> Of(const std::string& s) {
    return std::as_bytes(std::span(s));
  }

  // Writes the file's pages to the device and drops them from the page cache.
  // False where that does not work (a file system in memory).
  static bool Evict(int file) {
    const off_t size = lseek(file, 0, SEEK_END);
    for (int attempt = 0; attempt < 20; ++attempt) {
      if (fsync(file) < 0 ||
          posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) != 0) {
        return false;
      }
      if (Resident(file, size) == 0) return true;
    }
    return false;
  }

  // Pages of a file of our own that are in the page cache.
  static size_t Resident(int file, off_t size) {
    void* map = mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED,
                     file, 0);
    EXPECT_NE(map, MAP_FAILED);
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    std::vector<unsigned char> there((static_cast<size_t>(size) + page - 1) /
                                     page);
    EXPECT_EQ(0, mincore(map, static_cast<size_t>(size), there.data()));
    munmap(map, static_cast<size_t>(size));
    size_t pages = 0;
    for (unsigned char flags : there) pages += flags & 1;
    return pages;
  }
};
KEVENT_CONFORMANCE(SendfileTest);

TEST_P(SendfileTest, HeaderRangeAndTrailerOfAllSizes) {
  const std::string contents = Pattern(400'000);
  const int file = File(contents);
  Pair pair = TcpPair();
  for (size_t header : {0, 1, 300}) {
    for (size_t length : {0, 1, 4096, 5000, 300'000}) {
      for (size_t offset : {0, 1, 4095, 8192, 99'999}) {
        for (size_t trailer : {0, 1, 50}) {
          SCOPED_TRACE(testing::Message() << header << " + " << length << " at "
                                          << offset << " + " << trailer);
          const std::string& head = *Bytes(Pattern(header, 2));
          const std::string& tail = *Bytes(Pattern(trailer, 3));
          SendfileOp* op =
              NewSendfile(pair.ours, file, static_cast<int64_t>(offset),
                          static_cast<int64_t>(length));
          op->header = Of(head);
          op->trailer = Of(tail);
          MustSubmit(op);
          const std::string all = head + contents.substr(offset, length) + tail;
          ASSERT_TRUE(all == PeerRead(pair.peer, all.size()));
          ASSERT_EQ(static_cast<int64_t>(all.size()), ResultOf(op));
        }
      }
    }
  }
  EXPECT_EQ(queue().stats().cold_sendfiles, 0u);
}

TEST_P(SendfileTest, HeaderAndTrailerNeedNoFile) {
  Pair pair = TcpPair();
  const std::string& head = *Bytes("head");
  const std::string& tail = *Bytes("tail");
  SendfileOp* op = NewSendfile(pair.ours, -1, 0, 0);
  op->header = Of(head);
  op->trailer = Of(tail);
  MustSubmit(op);
  EXPECT_EQ(8, ResultOf(op));
  EXPECT_EQ("headtail", PeerRead(pair.peer, 8));
}

TEST_P(SendfileTest, LargerThanTheSocketAndLongerThanATurn) {
  const std::string contents = Pattern(12 << 20);
  const int file = File(contents);
  for (int buffer : {0, 64 << 10}) {
    Pair pair = TcpPair(buffer);
    const std::string& head = *Bytes("head");
    const std::string& tail = *Bytes("tail");
    SendfileOp* op = NewSendfile(pair.ours, file, 0, 12 << 20);
    op->header = Of(head);
    op->trailer = Of(tail);
    MustSubmit(op);
    const std::string got = PeerRead(pair.peer, contents.size() + 8);
    EXPECT_TRUE("head" + contents + "tail" == got);
    EXPECT_EQ(static_cast<int64_t>(contents.size() + 8), ResultOf(op));
  }
}

TEST_P(SendfileTest, LargeOnesTakeTurns) {
  if (queue().engine() == EngineKind::kModule) {
    GTEST_SKIP() << "that sends in the kernel";
  }
  constexpr int64_t kOneTurn = 2 << 20;
  constexpr int64_t kSize = 6 * kOneTurn;
  const int file = File(Pattern(kSize));
  SendfileOp* ops[4];
  for (SendfileOp*& op : ops) {
    const Pair pair = TcpPair();
    if (!MakeRoom(pair.ours, 4 * kSize)) GTEST_SKIP() << "no room for it";
    op = NewSendfile(pair.ours, file, 0, kSize);
    MustSubmit(op);
  }
  for (int pass = 0; taken_.empty(); ++pass) {
    const auto [least, most] =
        std::minmax_element(ops, ops + 4, [](SendfileOp* a, SendfileOp* b) {
          return a->progress() < b->progress();
        });
    // The first asked again before the others came.
    EXPECT_LE((*most)->progress() - (*least)->progress(), 2 * kOneTurn);
    int64_t all = 0;
    for (SendfileOp* op : ops) all += op->progress();
    EXPECT_LE(all, (pass + 1) * 2 * kOneTurn);
    ASSERT_LE(pass, 24);
    Look();
  }
  for (SendfileOp* op : ops) EXPECT_EQ(kSize, ResultOf(op));
}

// The cork would hold back the end of a turn's last segment until then.
TEST_P(SendfileTest, AShortRestAwaitsNoTurn) {
  if (queue().engine() == EngineKind::kModule) {
    GTEST_SKIP() << "that sends in the kernel";
  }
  constexpr int kOneTurn = 2 << 20;
  const int file = File(Pattern(kOneTurn));
  const Pair pair = TcpPair();
  if (!MakeRoom(pair.ours, 4 * kOneTurn)) GTEST_SKIP() << "no room for it";
  SendfileOp* op = NewSendfile(pair.ours, file, 0, kOneTurn);
  const std::string& tail = *Bytes("tail");
  op->trailer = Of(tail);
  MustSubmit(op);
  Entry entry;
  ASSERT_EQ(1u, queue().Take({&entry, 1}));
  Note(entry);
  EXPECT_EQ(kOneTurn + 4, entry.result);
}

// What a queue does to fill segments must not hold back what is sent next.
TEST_P(SendfileTest, LeavesTheCorkAsItWas) {
  const int file = File(Pattern(12 << 20));
  for (int before : {0, 1}) {
    SCOPED_TRACE(before);
    Pair pair = TcpPair();
    ASSERT_EQ(0, setsockopt(pair.ours, IPPROTO_TCP, TCP_CORK, &before,
                            sizeof before));
    SendfileOp* op = NewSendfile(pair.ours, file, 0, 12 << 20);
    MustSubmit(op);
    PeerRead(pair.peer, 12 << 20);
    EXPECT_EQ(12 << 20, ResultOf(op));
    EXPECT_EQ(before, Corked(pair.ours));

    // Cancelled on its way, and behind it before its first byte.
    SendfileOp* first = NewSendfile(pair.ours, file, 0, 12 << 20);
    SendfileOp* second = NewSendfile(pair.ours, file, 0, 12 << 20);
    MustSubmit(first);
    MustSubmit(second);
    queue().Cancel(second);
    queue().Cancel(first);
    EXPECT_EQ(-ECANCELED, ResultOf(second));
    EXPECT_LT(ResultOf(first), 12 << 20);
    EXPECT_EQ(before, Corked(pair.ours));
  }
}

TEST_P(SendfileTest, DoesNotMoveTheFilesOffset) {
  const int file = File(Pattern(1000));
  ASSERT_EQ(7, lseek(file, 7, SEEK_SET));
  Pair pair = TcpPair();
  SendfileOp* op = NewSendfile(pair.ours, file, 100, 500);
  MustSubmit(op);
  EXPECT_EQ(500, ResultOf(op));
  EXPECT_EQ(7, lseek(file, 0, SEEK_CUR));
}

TEST_P(SendfileTest, RangePastTheEndOfTheFileEndsShort) {
  const std::string contents = Pattern(10'000);
  const int file = File(contents);
  Pair pair = TcpPair();
  const std::string& head = *Bytes("head");
  const std::string& tail = *Bytes("tail");
  SendfileOp* op = NewSendfile(pair.ours, file, 4000, 20'000);
  op->header = Of(head);
  op->trailer = Of(tail);
  SendOp* after = NewSend(pair.ours, "must not go out");
  MustSubmit(op);
  MustSubmit(after);
  EXPECT_EQ(4 + 6000, ResultOf(op));
  EXPECT_EQ(-ECANCELED, ResultOf(after)) << "it would be taken for the body";
  ShutdownOp* shutdown = New<ShutdownOp>(pair.ours);
  MustSubmit(shutdown);
  EXPECT_EQ(0, ResultOf(shutdown));
  EXPECT_TRUE("head" + contents.substr(4000) == PeerReadToEnd(pair.peer));
}

TEST_P(SendfileTest, RangeBehindTheFileSendsTheHeaderOnly) {
  const int file = File("short");
  Pair pair = TcpPair();
  const std::string& head = *Bytes("head");
  SendfileOp* op = NewSendfile(pair.ours, file, 100, 10);
  op->header = Of(head);
  op->trailer = Of(head);
  MustSubmit(op);
  EXPECT_EQ(4, ResultOf(op));
  ASSERT_EQ(0, shutdown(pair.ours, SHUT_WR));
  EXPECT_EQ("head", PeerReadToEnd(pair.peer));
}

TEST_P(SendfileTest, RangeBehindTheFileWithoutAHeaderIsNothing) {
  const int file = File("short");
  Pair pair = TcpPair();
  SendfileOp* op = NewSendfile(pair.ours, file, 5, 10);
  SendOp* linked = NewSend(pair.ours, "x");
  op->link = linked;
  MustSubmit(op);
  EXPECT_EQ(0, ResultOf(op));
  EXPECT_EQ(-ECANCELED, ResultOf(linked)) << "not the full length";
  // Nothing went out: the stream is whole, others go on.
  MustSubmit(linked);
  EXPECT_EQ(1, ResultOf(linked));
}

TEST_P(SendfileTest, FileTruncatedWhileItIsSent) {
  const std::string contents = Pattern(8 << 20);
  const int file = File(contents);
  Pair pair = TcpPair(64 << 10);
  const std::string& tail = *Bytes("tail");
  SendfileOp* op = NewSendfile(pair.ours, file, 0, 8 << 20);
  op->trailer = Of(tail);
  MustSubmit(op);
  for (int i = 0; i < 5; ++i) Look();
  ASSERT_TRUE(op->in_flight()) << "the peer does not read";
  constexpr size_t kLeft = 4 << 20;
  ASSERT_EQ(0, ftruncate(file, kLeft));
  SendOp* after = NewSend(pair.ours, "must not go out");
  MustSubmit(after);
  ShutdownOp* shutdown = New<ShutdownOp>(pair.ours);
  MustSubmit(shutdown);
  const std::string got = PeerReadToEnd(pair.peer);
  EXPECT_EQ(kLeft, got.size());
  EXPECT_TRUE(contents.substr(0, kLeft) == got);
  EXPECT_EQ(static_cast<int64_t>(kLeft), ResultOf(op));
  EXPECT_EQ(-ECANCELED, ResultOf(after));
  EXPECT_EQ(0, ResultOf(shutdown));
}

TEST_P(SendfileTest, PeerResetsInTheMiddle) {
  const int file = File(Pattern(8 << 20));
  Pair pair = TcpPair(64 << 10);
  SendfileOp* op = NewSendfile(pair.ours, file, 0, 8 << 20);
  SendfileOp* queued = NewSendfile(pair.ours, file, 0, 100);
  SendfileOp* linked = NewSendfile(pair.ours, file, 0, 100);
  op->link = linked;
  MustSubmit(op);
  MustSubmit(queued);
  PeerRead(pair.peer, 100'000);
  ASSERT_TRUE(op->in_flight());
  ResetPeer(pair.peer);
  CloseOwned(pair.peer);
  int64_t r = ResultOf(op);
  EXPECT_GE(r, 100'000);
  EXPECT_LT(r, 8 << 20);
  for (const Entry& e : WaitFor(2)) EXPECT_EQ(-ECANCELED, e.result);
  EXPECT_FALSE(queued->in_flight());
  EXPECT_FALSE(linked->in_flight());
}

TEST_P(SendfileTest, FailsForAFileThatCannotBeRead) {
  Pair pair = TcpPair();
  const int closed = File("x");
  CloseOwned(closed);
  SendfileOp* op = NewSendfile(pair.ours, closed, 0, 1);
  MustSubmit(op);
  EXPECT_EQ(-EBADF, ResultOf(op));

  const int folder = Own(open(TempFolder().c_str(), O_RDONLY | O_CLOEXEC));
  op = NewSendfile(pair.ours, folder, 0, 1);
  MustSubmit(op);
  EXPECT_LT(ResultOf(op), 0);

  const int write_only = Own(open("/proc/self/comm", O_WRONLY | O_CLOEXEC));
  op = NewSendfile(pair.ours, write_only, 0, 1);
  MustSubmit(op);
  EXPECT_LT(ResultOf(op), 0);
  SendOp* send = NewSend(pair.ours, "x");
  MustSubmit(send);
  EXPECT_EQ(1, ResultOf(send)) << "nothing had gone out";
}

TEST_P(SendfileTest, FailsForASocketThatIsNone) {
  const int file = File("x");
  const int closed = Pipe().first;
  CloseOwned(closed);
  SendfileOp* op = NewSendfile(closed, file, 0, 1);
  MustSubmit(op);
  EXPECT_EQ(-EBADF, ResultOf(op));
}

TEST_P(SendfileTest, SendsByReference) {
  const int file = File(std::string(4096, 'a'));
  Pair pair = TcpPair();
  SendfileOp* op = NewSendfile(pair.ours, file, 0, 4096);
  MustSubmit(op);
  EXPECT_EQ(4096, ResultOf(op));
  const std::string after(4096, 'b');
  ASSERT_EQ(4096, pwrite(file, after.data(), after.size(), 0));
  EXPECT_EQ(after, PeerRead(pair.peer, 4096));
}

TEST_P(SendfileTest, ManySocketsAtOnce) {
  const std::string contents = Pattern(3 << 20);
  const int file = File(contents);
  std::vector<Pair> pairs;
  for (int i = 0; i < 10; ++i) {
    pairs.push_back(TcpPair(64 << 10));
    SendfileOp* op = NewSendfile(pairs.back().ours, file, i, (3 << 20) - i);
    op->user_data = static_cast<uint64_t>(i);
    MustSubmit(op);
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    EXPECT_TRUE(contents.substr(i) ==
                PeerRead(pairs[i].peer, contents.size() - i));
  }
  for (const Entry& e : WaitFor(pairs.size())) {
    EXPECT_EQ(e.result, (3 << 20) - static_cast<int64_t>(e.user_data));
  }
}

// --- Pages that are not in memory.

TEST_P(SendfileTest, ColdPagesAreReadOffTheThread) {
  const std::string contents = Pattern((5 << 20) + 1234);
  const int file = File(contents);
  if (!Evict(file)) GTEST_SKIP() << "the file's pages cannot be evicted here";
  Pair pair = TcpPair();
  const std::string& head = *Bytes("head");
  const std::string& tail = *Bytes("tail");
  SendfileOp* op = NewSendfile(pair.ours, file, 100,
                               static_cast<int64_t>(contents.size()) - 100);
  op->header = Of(head);
  op->trailer = Of(tail);
  MustSubmit(op);
  const std::string all = "head" + contents.substr(100) + "tail";
  EXPECT_TRUE(all == PeerRead(pair.peer, all.size()));
  EXPECT_EQ(static_cast<int64_t>(all.size()), ResultOf(op));
  EXPECT_GT(queue().stats().cold_sendfiles, 0u);
}

TEST_P(SendfileTest, MemoDoesNotHideColdPages) {
  const std::string contents = Pattern(5 << 20);
  const int file = File(contents);
  if (!Evict(file)) GTEST_SKIP() << "the file's pages cannot be evicted here";
  FileMemo memo;
  Pair pair = TcpPair();
  for (int i = 0; i < 3; ++i) {
    SendfileOp* op = NewSendfile(pair.ours, file, i, (5 << 20) - i);
    op->memo = &memo;
    MustSubmit(op);
    EXPECT_TRUE(contents.substr(static_cast<size_t>(i)) ==
                PeerRead(pair.peer, contents.size() - static_cast<size_t>(i)));
    EXPECT_EQ((5 << 20) - i, ResultOf(op));
    EXPECT_GT(queue().stats().cold_sendfiles, 0u);
  }
}

TEST_P(SendfileTest, HotPagesGoOutInline) {
  const std::string contents = Pattern(5 << 20);
  const int file = File(contents);
  if (Resident(file, 5 << 20) * static_cast<size_t>(sysconf(_SC_PAGESIZE)) !=
      5 << 20) {
    GTEST_SKIP() << "the file is not in the page cache";
  }
  Pair pair = TcpPair();
  SendfileOp* op = NewSendfile(pair.ours, file, 0, 5 << 20);
  MustSubmit(op);
  EXPECT_TRUE(contents == PeerRead(pair.peer, contents.size()));
  EXPECT_EQ(5 << 20, ResultOf(op));
  EXPECT_EQ(queue().stats().cold_sendfiles, 0u);
}

TEST_P(SendfileTest, MoreColdFilesThanThreads) {
  Queue::Options options;
  options.populate_threads = 2;
  Reopen(options);
  std::vector<Pair> pairs;
  std::vector<std::string> contents;
  for (uint32_t i = 0; i < 12; ++i) {
    contents.push_back(Pattern(700'000, i));
    const int file = File(contents.back());
    if (!Evict(file)) GTEST_SKIP() << "the file's pages cannot be evicted here";
    pairs.push_back(TcpPair(64 << 10));
    SendfileOp* op = NewSendfile(pairs.back().ours, file, 0, 700'000);
    MustSubmit(op);
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    EXPECT_TRUE(contents[i] == PeerRead(pairs[i].peer, 700'000));
  }
  for (const Entry& e : WaitFor(pairs.size())) EXPECT_EQ(e.result, 700'000);
  EXPECT_GE(queue().stats().cold_sendfiles, pairs.size());
}

TEST_P(SendfileTest, CancelledWhilePagesAreRead) {
  for (int i = 0; i < 10; ++i) {
    const int file = File(Pattern(4 << 20));
    if (!Evict(file)) GTEST_SKIP() << "the file's pages cannot be evicted here";
    Pair pair = TcpPair();
    SendfileOp* op = NewSendfile(pair.ours, file, 0, 4 << 20);
    MustSubmit(op);
    if (i % 2) Look();
    if (i % 3 == 2) {
      EXPECT_EQ(0, CloseByQueue(pair.ours));
    } else if (op->in_flight()) {
      int r = queue().Cancel(op);
      EXPECT_TRUE(r == 0 || r == -ENOENT) << r;
    }
    int64_t r = ResultOf(op);
    EXPECT_TRUE(r == -ECANCELED || (r > 0 && r <= 4 << 20)) << r;
  }
}

TEST_P(SendfileTest, ColdBesideHot) {
  const std::string cold_bytes = Pattern(4 << 20, 1);
  const std::string hot_bytes = Pattern(10'000, 2);
  const int cold = File(cold_bytes);
  const int hot = File(hot_bytes);
  if (!Evict(cold)) GTEST_SKIP() << "the file's pages cannot be evicted here";
  Pair slow = TcpPair();
  Pair fast = TcpPair();
  SendfileOp* slow_op = NewSendfile(slow.ours, cold, 0, 4 << 20);
  SendfileOp* fast_op = NewSendfile(fast.ours, hot, 0, 10'000);
  MustSubmit(slow_op);
  MustSubmit(fast_op);
  EXPECT_EQ(10'000, ResultOf(fast_op)) << "it overtakes";
  EXPECT_TRUE(hot_bytes == PeerRead(fast.peer, hot_bytes.size()));
  EXPECT_TRUE(cold_bytes == PeerRead(slow.peer, cold_bytes.size()));
  EXPECT_EQ(4 << 20, ResultOf(slow_op));
}

TEST_P(SendfileTest, QueueDestroyedWhilePagesAreRead) {
  const int file = File(Pattern(4 << 20));
  if (!Evict(file)) GTEST_SKIP() << "the file's pages cannot be evicted here";
  Pair pair = TcpPair();
  SendfileOp* op = NewSendfile(pair.ours, file, 0, 4 << 20);
  MustSubmit(op);
  Destroy();
  EXPECT_FALSE(op->in_flight());
}

}  // namespace
}  // namespace kevent::conformance
