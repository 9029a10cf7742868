// SPDX-License-Identifier: Apache-2.0
//
// Many interests of an ordinary user, with the limits that a user has.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <map>

#include "kevent/vm/tests/fixture.h"

namespace kevent::raw {
namespace {

constexpr int kInterests = 100'000;

// KiB of the machine's memory that nobody uses.
int64_t AvailableKib() {
  FILE* file = fopen("/proc/meminfo", "re");
  CHILD_CHECK(file);
  char line[128];
  long long kib = -1;
  while (fgets(line, sizeof line, file)) {
    if (sscanf(line, "MemAvailable: %lld kB", &kib) == 1) break;
  }
  fclose(file);
  CHILD_CHECK(kib > 0);
  return kib;
}

// What /proc/self/fdinfo says of a queue.
std::map<std::string, std::string> Fields(const Queue& queue) {
  const std::string path = "/proc/self/fdinfo/" + std::to_string(queue.fd());
  FILE* file = fopen(path.c_str(), "re");
  CHILD_CHECK(file);
  char line[256];
  std::map<std::string, std::string> fields;
  while (fgets(line, sizeof line, file)) {
    if (char* colon = strchr(line, ':')) {
      *colon = '\0';
      fields[line] = colon + 1 + strspn(colon + 1, " \t");
    }
  }
  fclose(file);
  return fields;
}

void Control(const Queue& queue, std::vector<kevent_sqe>* changes) {
  for (size_t at = 0; at < changes->size();) {
    const size_t n = std::min<size_t>(changes->size() - at, KEVENT_MAX_CHANGES);
    const int made = queue.Control({changes->data() + at, n});
    CHILD_CHECK(made > 0);
    at += static_cast<size_t>(made);
  }
}

// In a child that is an ordinary user, also when root runs the test.
#define AS_USER(...)        \
  do {                      \
    Child child([&] {       \
      BecomeUser();         \
      __VA_ARGS__           \
    });                     \
    EXPECT_CHILD_OK(child); \
  } while (false)

TEST(LimitsTest, AHundredThousandInterests) {
  AS_USER({
    Queue queue;
    CHILD_CHECK(queue.Open() == 0);
    std::vector<Pair> pipes;
    for (;;) {
      int fds[2];
      if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
        CHILD_CHECK(errno == EMFILE || errno == ENFILE);
        break;
      }
      pipes.push_back({Fd(fds[0]), Fd(fds[1])});
    }
    CHILD_CHECK(pipes.size() > 100);
    std::vector<kevent_sqe> adds;
    for (size_t i = 0; i < kInterests; ++i) {
      if (i < pipes.size()) {
        adds.push_back(AddPoll(pipes[i].ours.get(), KEVENT_IN, 0, i));
      } else if (i % 2) {
        adds.push_back(AddTimer(3600 * kSecond, 0, 0, i));
      } else {
        adds.push_back(AddUser(0, i));
      }
    }
    Control(queue, &adds);
    for (const kevent_sqe& add : adds) CHILD_CHECK(add.result == 0);

    // All work among so many: the first, the last, some between.
    for (size_t i = 0; i < kInterests; i += 997) {
      if (i < pipes.size()) {
        CHILD_CHECK(write(pipes[i].peer.get(), "x", 1) == 1);
      } else if (i % 2) {
        kevent_sqe change = Change(KEVENT_OP_MODIFY, adds[i].handle);
        change.arg[0] = 1;
        change.user_data = i;
        CHILD_CHECK(queue.Make(&change) == 0);
      } else {
        CHILD_CHECK(queue.Ready(adds[i].handle) == 0);
      }
      kevent_entry entry;
      CHILD_CHECK(queue.Copy({&entry, 1}, 1, PatienceNs()) == 1);
      CHILD_CHECK(entry.user_data == i);
      CHILD_CHECK(entry.handle == adds[i].handle);
      if (i < pipes.size()) {
        char byte;
        CHILD_CHECK(read(pipes[i].ours.get(), &byte, 1) == 1);
      }
    }
    // All at once, through a ring that holds a part of them.
    size_t users = 0;
    for (size_t i = pipes.size(); i < kInterests; ++i) {
      if (i % 2) continue;
      ++users;
      adds[i] = Change(KEVENT_OP_READY, adds[i].handle);
    }
    std::vector<kevent_sqe> ready;
    for (const kevent_sqe& add : adds) {
      if (add.opcode == KEVENT_OP_READY) ready.push_back(add);
    }
    Control(queue, &ready);
    std::vector<kevent_entry> entries(1000);
    size_t got = 0;
    while (got < users) {
      const int r = queue.Copy(entries, 1, PatienceNs());
      CHILD_CHECK(r > 0);
      got += static_cast<size_t>(r);
    }
    CHILD_CHECK(got == users);
    CHILD_CHECK(queue.Look() == 0);
  });
}

TEST(LimitsTest, MemoryIsGivenBack) {
  AS_USER({
    std::vector<kevent_sqe> adds(kInterests);
    int64_t before = 0;
    int64_t used = 0;
    const int64_t end = NowNs() + PatienceNs() / 4;
    // The first round warms the allocators up, the second is measured. A debug
    // kernel makes fewer.
    for (int round = 0; round < 12 && (round < 4 || NowNs() < end); ++round) {
      if (round == 1) before = AvailableKib();
      Queue queue;
      CHILD_CHECK(queue.Open({1024, 16, 0}) == 0);
      for (kevent_sqe& add : adds) add = AddTimer(3600 * kSecond);
      Control(queue, &adds);
      for (const kevent_sqe& add : adds) CHILD_CHECK(add.result == 0);
      if (round == 1) used = before - AvailableKib();
      // Taken away singly, or all with the queue.
      if (round % 2 == 0) continue;
      std::vector<kevent_sqe> removes;
      for (const kevent_sqe& add : adds) {
        removes.push_back(Change(KEVENT_OP_REMOVE, add.handle));
      }
      Control(queue, &removes);
      for (const kevent_sqe& remove : removes) CHILD_CHECK(remove.result == 0);
      CHILD_CHECK(atoi(Fields(queue)["kevent-interests"].c_str()) == 0);
      CHILD_CHECK(atoi(Fields(queue)["kevent-user-interests"].c_str()) == 0);
    }
    dprintf(1, "%d interests: %lld KiB\n", kInterests,
            static_cast<long long>(used));
    CHILD_CHECK(used < kInterests);  // a kilobyte for each is too much
    // Freed memory comes back after a grace period. What every round took would
    // be missing, give or take what the machine does beside.
    const int64_t deadline = NowNs() + PatienceNs() / 2;
    while (AvailableKib() < before - 2 * used - 4096) {
      CHILD_CHECK(NowNs() < deadline);
      sched_yield();
    }
  });
}

TEST(LimitsTest, TheLimitOfTheQueue) {
  AS_USER({
    Queue queue;
    CHILD_CHECK(queue.Open({8, 8, 1000}) == 0);
    std::vector<kevent_sqe> adds(1100, AddUser());
    Control(queue, &adds);
    for (size_t i = 0; i < adds.size(); ++i) {
      CHILD_CHECK(adds[i].result == (i < 1000 ? 0 : -ENOSPC));
    }
    for (int i = 0; i < 500; ++i)
      CHILD_CHECK(queue.Remove(adds[i].handle) == 0);
    std::vector<kevent_sqe> more(600, AddUser());
    Control(queue, &more);
    for (size_t i = 0; i < more.size(); ++i) {
      CHILD_CHECK(more[i].result == (i < 500 ? 0 : -ENOSPC));
    }
  });
}

constexpr char kUserLimit[] =
    "/sys/module/kevent/parameters/max_user_interests";

bool SetUserLimit(long limit) {
  Fd fd(open(kUserLimit, O_WRONLY | O_CLOEXEC));
  const std::string text = std::to_string(limit);
  return fd && write(fd.get(), text.data(), text.size()) > 0;
}

TEST(LimitsTest, TheLimitOfTheUser) {
  if (getuid() != 0) GTEST_SKIP() << "the limit is set by root";
  ASSERT_TRUE(SetUserLimit(1000)) << strerror(errno);
  AS_USER({
    for (int round = 0; round < 3; ++round) {
      Queue one;
      Queue two;
      CHILD_CHECK(one.Open() == 0);
      CHILD_CHECK(two.Open() == 0);
      std::vector<kevent_sqe> adds(600, AddUser());
      Control(one, &adds);
      for (const kevent_sqe& add : adds) CHILD_CHECK(add.result == 0);
      std::vector<kevent_sqe> more(600, AddUser());
      Control(two, &more);
      for (size_t i = 0; i < more.size(); ++i) {
        CHILD_CHECK(more[i].result == (i < 400 ? 0 : -ENOSPC));
      }
      CHILD_CHECK(one.Remove(adds[0].handle) == 0);
      kevent_sqe add = AddUser();
      CHILD_CHECK(two.Make(&add) == 0);
      add = AddUser();
      CHILD_CHECK(two.Make(&add) == -ENOSPC);
    }
  });
  // Another user is not concerned.
  Queue ours;
  EXPECT_EQ(0, ours.Open());
  kevent_sqe add = AddUser();
  EXPECT_EQ(0, ours.Make(&add));
  EXPECT_TRUE(SetUserLimit(0));
}

TEST(LimitsTest, LockedMemoryIsThatOfTheRings) {
  // A user may lock 8 MiB as a rule: rings of the default size fit often.
  AS_USER({
    rlimit limit;
    CHILD_CHECK(getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    std::vector<Queue> queues;
    for (;;) {
      Queue queue;
      const int r = queue.Open();
      if (r != 0) {
        CHILD_CHECK(r == -ENOMEM || r == -EMFILE);
        break;
      }
      queues.push_back(std::move(queue));
      if (queues.size() == 200) break;
    }
    CHILD_CHECK(queues.size() >= 8);
    if (limit.rlim_cur != RLIM_INFINITY) {
      CHILD_CHECK(queues.size() * queues[0].ring_bytes() <= limit.rlim_cur);
    }
  });
}

TEST(LimitsTest, TheDescriptionOfAQueue) {
  Queue queue;
  ASSERT_EQ(0, queue.Open());
  std::vector<kevent_sqe> adds(7, AddUser());
  ASSERT_EQ(7, queue.Control(adds));
  ASSERT_EQ(0, queue.Ready(adds[0].handle));
  auto fields = Fields(queue);
  EXPECT_EQ(7, atoi(fields["kevent-interests"].c_str()));
  EXPECT_EQ(7, atoi(fields["kevent-user"].c_str()));
  EXPECT_EQ(7, atoi(fields["kevent-user-interests"].c_str()));
  EXPECT_EQ(1, atoi(fields["kevent-ring"].c_str()));
}

}  // namespace
}  // namespace kevent::raw
