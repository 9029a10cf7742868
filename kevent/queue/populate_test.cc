// SPDX-License-Identifier: Apache-2.0
//
// What the threads that read cold pages tell of themselves; that they read what
// they should is the conformance suite's.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "kevent/queue/queue.h"

namespace kevent {
namespace {

TEST(PopulateTest, TellsHowLongItRead) {
  std::string name = testing::TempDir() + "/populate_XXXXXX";
  const int file = mkostemp(name.data(), O_CLOEXEC);
  ASSERT_GE(file, 0);
  unlink(name.c_str());
  const std::vector<char> contents(64 << 10, 'c');
  ASSERT_EQ(write(file, contents.data(), contents.size()),
            static_cast<ssize_t>(contents.size()));
  ASSERT_EQ(fsync(file), 0);
  ASSERT_EQ(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), 0);
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);

  SendfileOp op;
  op.fd = ends[0];
  op.file = file;
  op.length = static_cast<int64_t>(contents.size());
  Queue::Options options;
  options.engine = EngineKind::kEpoll;
  auto queue = Queue::Create(options);
  ASSERT_TRUE(queue.ok()) << queue.status();
  ASSERT_EQ((*queue)->Submit(&op), 0);
  Entry entry;
  int r;
  do {
    r = (*queue)->Enter({&entry, 1}, {.timeout_ns = 20'000'000'000});
  } while (r == -EINTR);
  ASSERT_EQ(r, 1);
  EXPECT_EQ(entry.result, op.length);
  const Queue::Stats stats = (*queue)->stats();
  if (stats.cold_sendfiles == 0) {
    GTEST_SKIP() << "the file's pages cannot be evicted here";
  }
  EXPECT_GT(stats.populate_ns, 0u);
  queue->reset();
  for (int fd : {file, ends[0], ends[1]}) close(fd);
}

// What lies in memory alone needs no thread to read it.
TEST(PopulateTest, SendsFilesInMemoryAtOnce) {
  const int file = memfd_create("populate_test", MFD_CLOEXEC);
  ASSERT_GE(file, 0);
  const std::string contents(20'000, 'm');
  ASSERT_EQ(write(file, contents.data(), contents.size()),
            static_cast<ssize_t>(contents.size()));
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  for (EngineKind engine : {EngineKind::kEpoll, EngineKind::kUring}) {
    Queue::Options options;
    options.engine = engine;
    auto queue = Queue::Create(options);
    if (!queue.ok()) continue;  // no io_uring here
    SendfileOp op;
    op.fd = ends[0];
    op.file = file;
    op.length = static_cast<int64_t>(contents.size());
    op.flags = kOpSkipInline;
    EXPECT_EQ((*queue)->Submit(&op), Queue::kDone);
    EXPECT_EQ((*queue)->stats().cold_sendfiles, 0u);
  }
  for (int fd : {file, ends[0], ends[1]}) close(fd);
}

}  // namespace
}  // namespace kevent
