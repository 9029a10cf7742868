// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_VM_TESTS_FIXTURE_H_
#define KEVENT_VM_TESTS_FIXTURE_H_

#include <gtest/gtest.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kevent/vm/tests/raw.h"

namespace kevent::raw {

inline constexpr uint64_t kNoHandle = ~uint64_t{0};
// The handle of an entry that never came.

struct Pair {
  Fd ours;  // for the queue; blocking
  Fd peer;  // the test's end; blocking
};

Pair TcpPair(int family = AF_INET, int segment = 0);
// Connected over loopback, without Nagle's delay, with segments of that many
// bytes at most, or of the kernel's choice.
Pair SocketPair(int type);
// Of AF_UNIX.
Pair PipePair();
// Reading end, writing end.
Fd Listen(int family = AF_INET, int backlog = 128, int segment = 0);
Fd ConnectTo(const Fd& listener, int segment = 0);

bool WaitPoll(int fd, short events);
// Until poll(2) shows one of `events`; false if it takes too long.
short PollNow(int fd, short events);
void SetNonBlocking(int fd);
size_t Fill(int fd);
// Writes until no byte more goes in; returns how many went.
size_t Drain(int fd);
// Reads until nothing is left. Like Fill it makes a blocking descriptor another
// one meanwhile: one thread at a time.
void Send(int fd, std::string_view bytes);
void ReadExactly(int fd, size_t size);
// Blocks until that much has come.
bool AtEnd(int fd);
// Blocks until a read from a socket ends it: by FIN, or by reset.

std::string TempFolder();

void SendDescriptor(int socket, int fd);
// By SCM_RIGHTS, with one byte.

class Child {
 public:
  explicit Child(const std::function<void()>& run);
  // Forks; the child calls `run`, then _exit(0). It ends with its parent.
  Child(Child&& other) noexcept;
  ~Child();
  // Kills it if it still runs.

  pid_t pid() const { return pid_; }
  void Kill(int signo) const;
  int Wait();
  // Its wait status, or -1 (and a failure) if it does not end.

 private:
  pid_t pid_ = -1;
  Fd pidfd_;
};

#define CHILD_CHECK(condition)                                         \
  do {                                                                 \
    if (!(condition)) {                                                \
      dprintf(2, "%s:%d: in the child: not %s (errno %d)\n", __FILE__, \
              __LINE__, #condition, errno);                            \
      _exit(99);                                                       \
    }                                                                  \
  } while (false)
// As ASSERT_TRUE, but in a child.

#define EXPECT_CHILD_OK(child)                                              \
  do {                                                                      \
    const int status_of_child = (child).Wait();                             \
    EXPECT_TRUE(WIFEXITED(status_of_child) &&                               \
                WEXITSTATUS(status_of_child) == 0)                          \
        << "the child ended with status 0x" << std::hex << status_of_child; \
  } while (false)

void BecomeUser();
// In a child of root: an ordinary user in the group that may open /dev/kevent.
// In a child of a user: nothing.

void ForbidCalls();
// From here on the thread may make no system call but to end, and has no way to
// be told of anything but by memory.
[[noreturn]] void EndThread();
// Of such a thread.

uint64_t Counter(const std::string& fdinfo, const std::string& name);
uint64_t Counter(const Queue& queue, const std::string& name);
// The number in the line kevent-`name` that the file /proc/PID/fdinfo/FD has.

enum class Reading {
  kRing,    // entries are taken from the mapped ring
  kCopies,  // KEVENT_ENTER copies them out
};

const char* ReadingName(Reading reading);

class QueueTest : public testing::Test {
 protected:
  void SetUp() override { Reopen({}); }
  void TearDown() override;

  Queue& queue() { return queue_; }
  void Reopen(const Options& options, Reading reading = Reading::kRing);

  int Own(int fd);
  // Closed at the end; returns it.
  void CloseOwned(int fd);

  uint64_t MustAdd(kevent_sqe sqe);
  // An interest that is not ready yet, or that has KEVENT_ALWAYS_QUEUE.
  kevent_entry Next();
  // The next entry; a failure, and one with kNoHandle, if none comes.
  kevent_entry Expect(uint64_t handle, uint32_t events);
  // Next, which must be of `handle` and tell `events` and nothing else, save
  // KEVENT_ERR, KEVENT_HUP.
  kevent_entry ExpectLast(uint64_t handle);
  // Next, which must be the last of `handle`.
  void ExpectNothing();
  // Tests level interests, makes a later event, and expects that before
  // anything else.
  void AllowGaps() { gaps_ = true; }
  // Entries that KEVENT_LAST_CHECK drops have had a number.

 private:
  bool Receive(kevent_entry* entry, int64_t timeout_ns);

  Queue queue_;
  Reading reading_ = Reading::kRing;
  uint64_t fence_ = 0;
  uint64_t fences_ = 0;
  uint32_t next_sequence_ = 0;
  bool gaps_ = false;
  std::set<int> fds_;
};
// A queue, and whatever a test opens.

void ExpectTold(const kevent_entry& entry, uint32_t events);
// `entry` tells `events` and nothing else, save KEVENT_ERR and KEVENT_HUP.

}  // namespace kevent::raw

#endif  // KEVENT_VM_TESTS_FIXTURE_H_
