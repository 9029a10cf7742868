// SPDX-License-Identifier: Apache-2.0
//
// Failures of allocations and of copies from and to user memory, injected into
// one after another of those that a call makes (fault-injection.rst, fail-nth).
// Whatever fails is told by a clear error and leaves nothing behind: the test
// bed looks for leaks. Needs the debug kernel.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "kevent/vm/tests/fixture.h"

namespace kevent::raw {
namespace {

bool Write(const char* path, const char* text) {
  Fd fd(open(path, O_WRONLY | O_CLOEXEC));
  const auto size = static_cast<ssize_t>(strlen(text));
  return fd && write(fd.get(), text, strlen(text)) == size;
}

size_t OpenDescriptors() {
  size_t count = 0;
  DIR* dir = opendir("/proc/self/fd");
  while (readdir(dir)) ++count;
  closedir(dir);
  return count;
}

// What a call may answer when something in it has failed.
bool IsClear(int64_t result) {
  switch (-result) {
    case ENOMEM:
    case EFAULT:
    case EAGAIN:
    case ENOBUFS:
    case ENFILE:
    case ECANCELED:
      return true;
    default:
      return result >= 0;
  }
}

class InjectionTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path =
        "/proc/self/task/" + std::to_string(syscall(SYS_gettid)) + "/fail-nth";
    nth_.Reset(open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!nth_) GTEST_SKIP() << "this kernel injects no failures";
    for (const char* knob :
         {"failslab/ignore-gfp-wait", "fail_page_alloc/ignore-gfp-wait",
          "fail_page_alloc/ignore-gfp-highmem"}) {
      ASSERT_TRUE(
          Write((std::string("/sys/kernel/debug/") + knob).c_str(), "N"))
          << knob;
    }
    ASSERT_TRUE(Write("/sys/kernel/debug/fail_page_alloc/min-order", "0"));
  }

  void FailNth(int n) const {
    const std::string text = std::to_string(n);
    int tries = 3;  // for one that was left over
    while (pwrite(nth_.get(), text.data(), text.size(), 0) < 0) {
      ASSERT_GT(--tries, 0) << strerror(errno);
    }
  }

  // Calls `run`, which answers as a system call does, with each of its steps
  // failing in turn; `prepare` and `check` before and after, undisturbed.
  void Each(const std::function<void()>& prepare,
            const std::function<int64_t()>& run,
            const std::function<void(int64_t)>& check) {
    prepare();
    check(run());  // what is made once
    const size_t before = OpenDescriptors();
    failures_ = 0;
    for (int n = 1; n < 1000 && !HasFailure(); ++n) {
      prepare();
      FailNth(n);
      const int64_t r = run();
      char left[16] = {};
      // May itself be what fails: then `run` had fewer steps.
      const bool failed = pread(nth_.get(), left, sizeof left - 1, 0) < 0;
      FailNth(0);
      EXPECT_TRUE(IsClear(r)) << "step " << n << ": " << r;
      failures_ += r < 0;
      check(r);
      if (failed || atoi(left) != 0) {
        printf("%d steps, %d errors\n", n - 1, failures_);
        EXPECT_GT(n, 1);
        break;
      }
    }
    EXPECT_EQ(before, OpenDescriptors());
  }

  Fd nth_;
  int failures_ = 0;  // that were told
};

TEST_F(InjectionTest, OpenAndSetup) {
  Fd fd;
  Each([] {},
       [&]() -> int64_t {
         const int opened = OpenDevice();
         fd.Reset(opened);
         if (opened < 0) return opened;
         kevent_setup setup = MakeSetup();
         if (ioctl(fd.get(), KEVENT_SETUP, &setup) != 0) return -errno;
         void* map = mmap(nullptr, setup.ring_bytes, PROT_READ | PROT_WRITE,
                          MAP_SHARED, fd.get(), 0);
         if (map == MAP_FAILED) return -errno;
         munmap(map, setup.ring_bytes);
         return 0;
       },
       [&](int64_t) { fd.Reset(); });
}

TEST_F(InjectionTest, InterestsOfEachSource) {
  Queue queue;
  ASSERT_EQ(0, queue.Open({64, 64, 0}));
  Pair tcp = TcpPair(), unix_pair = SocketPair(SOCK_STREAM), pipe = PipePair();
  Fd folder(open(TempFolder().c_str(), O_RDONLY | O_CLOEXEC));
  for (const kevent_sqe& add :
       {AddSocket(tcp.ours.get(), KEVENT_IN, 0, 1),
        AddSocket(unix_pair.ours.get(), KEVENT_IN | KEVENT_OUT, KEVENT_EDGE, 2),
        AddPoll(pipe.ours.get(), KEVENT_IN, KEVENT_ONESHOT, 3),
        AddInode(folder.get(), KEVENT_INODE_EVENTS, 0, 4),
        AddTimer(1000, 1'000'000, 0, 5, CLOCK_MONOTONIC), AddSignal(40, 0, 6),
        AddUser(0, 7)}) {
    SCOPED_TRACE(int{add.source});
    kevent_sqe sqe;
    int64_t added = 0;
    Each([&] { sqe = add; },
         [&]() -> int64_t { return added = queue.Make(&sqe); },
         [&](int64_t) {
           kevent_entry entry;
           queue.Wait(0, 0);
           while (queue.Take(&entry)) {
           }
           if (added >= 0) {
             EXPECT_EQ(0, queue.Remove(sqe.handle));
           }
         });
  }
}

class PoolInjectionTest : public InjectionTest,
                          public testing::WithParamInterface<uint32_t> {};

INSTANTIATE_TEST_SUITE_P(Pools, PoolInjectionTest,
                         testing::Values(KEVENT_REGISTER_POOL,
                                         KEVENT_REGISTER_PINNED_POOL));

TEST_P(PoolInjectionTest, Pools) {
  Queue queue;
  ASSERT_EQ(0, queue.Open({64, 64, 0}));
  char memory[256], ring[64];
  kevent_register g;
  Each(
      [&] {
        g = {};
        g.size = sizeof g;
        g.opcode = GetParam();
        g.address = reinterpret_cast<uintptr_t>(memory);
        g.bytes = sizeof memory;
        g.buffer_bytes = 64;
        g.ring = reinterpret_cast<uintptr_t>(ring);
      },
      [&]() -> int64_t {
        return ioctl(queue.fd(), KEVENT_REGISTER, &g) < 0 ? -errno : 0;
      },
      [&](int64_t r) {
        if (r < 0) return;
        g.opcode = KEVENT_UNREGISTER;
        g.address = g.bytes = g.buffer_bytes = 0;
        g.ring = 0;
        EXPECT_EQ(0, ioctl(queue.fd(), KEVENT_REGISTER, &g));
      });
}

// An operation, or several that wait for each other, and a peer that acts.
class OperationInjectionTest : public InjectionTest {
 protected:
  void SetUp() override {
    InjectionTest::SetUp();
    ASSERT_EQ(0, queue_.Open({64, 64, 0}));
  }
  kevent_sqe Operation(uint8_t opcode, int fd, uint64_t a = 0, uint64_t b = 0) {
    kevent_sqe sqe = Change(opcode);
    sqe.fd = fd;
    sqe.arg[0] = a;
    sqe.arg[1] = b;
    return sqe;
  }
  // All end, by what the failed step left of them, or by the end of the queue's
  // patience: then they are cancelled.
  void Run(
      const std::function<std::vector<kevent_sqe>()>& make,
      const std::function<void()>& act = [] {}) {
    uint32_t entries = 0;
    std::vector<kevent_sqe> sqes;
    uint32_t submitted = 0;
    auto take = [&] {
      kevent_entry entry;
      while (queue_.Take(&entry)) {
        EXPECT_TRUE(IsClear(entry.result)) << Describe(entry);
        failures_ += entry.result < 0;
        if (entry.flags & KEVENT_ENTRY_DONE) ++entries;
        if (entry.user_data == 1 && entry.result >= 0) {
          close(static_cast<int>(entry.result));  // accepted
        }
      }
    };
    Each(
        [&] {
          sqes = make();
          entries = 0;
          for (const kevent_sqe& sqe : sqes) ASSERT_TRUE(queue_.Put(sqe));
        },
        [&]() -> int64_t {
          int r = queue_.Submit(static_cast<uint32_t>(sqes.size()), &submitted);
          act();
          int waited = queue_.Wait(1, 5'000'000);
          return r < 0 ? r : waited;
        },
        [&](int64_t) {
          // Those that were not taken before it failed.
          const uint32_t left = queue_.sq_tail() - queue_.sq_head();
          if (left > 0) {
            EXPECT_GE(queue_.Submit(left), 0);
          }
          kevent_sqe any = Operation(KEVENT_OP_CANCEL, -1);
          any.events = KEVENT_CANCEL_ANY;
          any.user_data = 9;
          take();
          if (entries < sqes.size()) {
            ASSERT_TRUE(queue_.Put(any));
            EXPECT_GE(queue_.Submit(1), 0);
            kevent_entry entry;
            while (queue_.Take(&entry)) {
              if (entry.user_data != 9) {
                EXPECT_TRUE(IsClear(entry.result)) << Describe(entry);
                ++entries;
              }
            }
          }
          EXPECT_EQ(sqes.size(), entries);
        });
  }
  static uint64_t Address(const void* p) {
    return reinterpret_cast<uintptr_t>(p);
  }
  Queue queue_;
};

TEST_F(OperationInjectionTest, Recv) {
  Pair pair;
  char buffer[8];
  Run(
      [&] {
        pair = TcpPair();
        return std::vector{Operation(KEVENT_OP_RECV, pair.ours.get(),
                                     Address(buffer), sizeof buffer)};
      },
      [&] { static_cast<void>(!send(pair.peer.get(), "x", 1, 0)); });
}

TEST_F(OperationInjectionTest, SendOfMoreThanFitsAndWhatFollows) {
  Pair pair;
  const std::string big(4 << 20, 'x');
  Run([&] {
    pair = TcpPair();
    return std::vector{Operation(KEVENT_OP_SEND, pair.ours.get(),
                                 Address(big.data()), big.size()),
                       Operation(KEVENT_OP_SHUTDOWN, pair.ours.get(), SHUT_WR)};
  });
}

TEST_F(OperationInjectionTest, AChainAcrossSockets) {
  Pair pair, other;
  char buffer[1];
  const std::string text = "text";
  int copy = -1;
  Run(
      [&] {
        // A close that was cancelled leaves it open.
        if (copy >= 0) close(copy);
        pair = TcpPair();
        other = TcpPair();
        copy = dup(pair.ours.get());
        std::vector chain{Operation(KEVENT_OP_RECV, pair.ours.get(),
                                    Address(buffer), sizeof buffer),
                          Operation(KEVENT_OP_SEND, other.ours.get(),
                                    Address(text.data()), text.size()),
                          Operation(KEVENT_OP_CLOSE, copy),
                          Operation(KEVENT_OP_SHUTDOWN, pair.ours.get())};
        for (kevent_sqe& sqe : chain) sqe.flags = KEVENT_LINK;
        chain.back().flags = 0;
        return chain;
      },
      [&] { static_cast<void>(!send(pair.peer.get(), "x", 1, 0)); });
}

TEST_F(OperationInjectionTest, Accept) {
  Fd listener, peer;
  Run([&] {
    listener = Listen();
    kevent_sqe sqe = Operation(KEVENT_OP_ACCEPT, listener.get());
    sqe.user_data = 1;
    peer = ConnectTo(listener);
    return std::vector{sqe};
  });
}

TEST_F(OperationInjectionTest, Sendfile) {
  Pair pair;
  const std::string folder = TempFolder();
  std::string path = folder + "/file-XXXXXX";
  Fd file(mkostemp(path.data(), O_CLOEXEC));
  unlink(path.c_str());
  const std::string content(200'000, 'f');
  ASSERT_EQ(static_cast<ssize_t>(content.size()),
            write(file.get(), content.data(), content.size()));
  ASSERT_EQ(0, fsync(file.get()));
  const std::string header = "header";
  kevent_parts parts = {};
  parts.header = Address(header.data());
  parts.header_bytes = header.size();
  for (bool cold : {false, true}) {
    SCOPED_TRACE(cold);
    Run([&] {
      pair = TcpPair();
      if (cold) posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
      kevent_sqe sqe =
          Operation(KEVENT_OP_SENDFILE, pair.ours.get(), 1, 150'000);
      sqe.arg[2] = Address(&parts);
      sqe.arg[3] = static_cast<uint64_t>(file.get());
      return std::vector{sqe};
    });
  }
}

}  // namespace
}  // namespace kevent::raw
