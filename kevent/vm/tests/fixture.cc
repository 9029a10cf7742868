// SPDX-License-Identifier: Apache-2.0
#include "kevent/vm/tests/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>

namespace kevent::raw {
namespace {

constexpr uint64_t kFenceData = 0xfe2ce0000;

int64_t Deadline() { return NowNs() + PatienceNs(); }

int MsUntil(int64_t deadline) {
  return static_cast<int>(
      std::max<int64_t>(0, (deadline - NowNs() + kMs - 1) / kMs));
}

void SetNoDelay(int fd) {
  int one = 1;
  EXPECT_EQ(0, setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
}

void SetSegment(int fd, int bytes) {
  if (bytes == 0) return;
  EXPECT_EQ(0, setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &bytes, sizeof bytes));
}

socklen_t Loopback(int family, sockaddr_storage* address) {
  memset(address, 0, sizeof *address);
  address->ss_family = static_cast<sa_family_t>(family);
  if (family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(address)->sin6_addr = in6addr_loopback;
    return sizeof(sockaddr_in6);
  }
  reinterpret_cast<sockaddr_in*>(address)->sin_addr.s_addr =
      htonl(INADDR_LOOPBACK);
  return sizeof(sockaddr_in);
}

}  // namespace

// ---- Sockets and pipes ----

Fd Listen(int family, int backlog, int segment) {
  Fd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_TRUE(fd) << strerror(errno);
  sockaddr_storage address;
  const socklen_t length = Loopback(family, &address);
  EXPECT_EQ(0, bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length))
      << strerror(errno);
  SetSegment(fd.get(), segment);
  EXPECT_EQ(0, listen(fd.get(), backlog)) << strerror(errno);
  return fd;
}

Fd ConnectTo(const Fd& listener, int segment) {
  sockaddr_storage address;
  socklen_t length = sizeof address;
  EXPECT_EQ(0, getsockname(listener.get(),
                           reinterpret_cast<sockaddr*>(&address), &length));
  Fd fd(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  SetSegment(fd.get(), segment);
  EXPECT_EQ(0, connect(fd.get(), reinterpret_cast<sockaddr*>(&address), length))
      << strerror(errno);
  SetNoDelay(fd.get());
  return fd;
}

Pair TcpPair(int family, int segment) {
  Fd listener = Listen(family, 1, segment);
  Pair pair;
  pair.peer = ConnectTo(listener, segment);
  pair.ours = Fd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_TRUE(pair.ours) << strerror(errno);
  SetNoDelay(pair.ours.get());
  return pair;
}

Pair SocketPair(int type) {
  int fds[2] = {-1, -1};
  EXPECT_EQ(0, socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds));
  return {Fd(fds[0]), Fd(fds[1])};
}

Pair PipePair() {
  int fds[2] = {-1, -1};
  EXPECT_EQ(0, pipe2(fds, O_CLOEXEC)) << strerror(errno);
  return {Fd(fds[0]), Fd(fds[1])};
}

short PollNow(int fd, short events) {
  pollfd p = {fd, events, 0};
  return poll(&p, 1, 0) > 0 ? p.revents : short{0};
}

bool WaitPoll(int fd, short events) {
  const int64_t deadline = Deadline();
  for (;;) {
    pollfd p = {fd, events, 0};
    const int ms = MsUntil(deadline);
    if (poll(&p, 1, ms) > 0) return (p.revents & events) != 0;
    if (ms == 0) return false;
  }
}

void SetNonBlocking(int fd) {
  ASSERT_EQ(0, fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK));
}

size_t Fill(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  SetNonBlocking(fd);
  static const std::string block(64 << 10, 'f');
  size_t total = 0;
  for (ssize_t n; (n = write(fd, block.data(), block.size())) > 0;) {
    total += static_cast<size_t>(n);
  }
  EXPECT_EQ(EAGAIN, errno);
  fcntl(fd, F_SETFL, flags);
  return total;
}

size_t Drain(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  SetNonBlocking(fd);
  char block[4096];
  size_t total = 0;
  for (ssize_t n; (n = read(fd, block, sizeof block)) > 0;) {
    total += static_cast<size_t>(n);
  }
  fcntl(fd, F_SETFL, flags);
  return total;
}

void Send(int fd, std::string_view bytes) {
  ASSERT_EQ(static_cast<ssize_t>(bytes.size()),
            write(fd, bytes.data(), bytes.size()))
      << strerror(errno);
}

void ReadExactly(int fd, size_t size) {
  std::string bytes(std::min<size_t>(size, 64 << 10), '\0');
  while (size > 0) {
    ASSERT_TRUE(WaitPoll(fd, POLLIN));
    ssize_t n = read(fd, bytes.data(), std::min(size, bytes.size()));
    ASSERT_GT(n, 0) << strerror(errno);
    size -= static_cast<size_t>(n);
  }
}

bool AtEnd(int fd) {
  char block[4096];
  for (;;) {
    if (!WaitPoll(fd, POLLIN | POLLHUP | POLLERR)) return false;
    ssize_t n = read(fd, block, sizeof block);
    if (n == 0 || (n < 0 && errno == ECONNRESET)) return true;
    if (n < 0) return false;
  }
}

std::string TempFolder() {
  const char* folder = getenv("TEST_TMPDIR");
  return folder && *folder ? folder : testing::TempDir();
}

void SendDescriptor(int socket, int fd) {
  char byte = 'x';
  iovec vector = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  ASSERT_EQ(1, sendmsg(socket, &message, 0)) << strerror(errno);
}

// ---- Child ----

Child::Child(const std::function<void()>& run) {
  fflush(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    run();
    _exit(0);
  }
  EXPECT_GT(pid_, 0) << strerror(errno);
  pidfd_ = Fd(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  EXPECT_TRUE(pidfd_) << strerror(errno);
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)) {}

Child::~Child() {
  if (pid_ <= 0) return;
  Kill(SIGKILL);
  Wait();
}

void Child::Kill(int signo) const { kill(pid_, signo); }

int Child::Wait() {
  if (pid_ <= 0) return -1;
  if (!WaitPoll(pidfd_.get(), POLLIN)) {
    ADD_FAILURE() << "child " << pid_ << " does not end";
    return -1;
  }
  int status = -1;
  EXPECT_EQ(pid_, waitpid(pid_, &status, 0));
  pid_ = -1;
  return status;
}

void BecomeUser() {
  if (getuid() != 0) return;
  struct stat device;
  CHILD_CHECK(stat("/dev/kevent", &device) == 0);
  const gid_t group = device.st_gid;
  CHILD_CHECK(setgroups(1, &group) == 0);
  CHILD_CHECK(setresgid(1000, 1000, 1000) == 0);
  CHILD_CHECK(setresuid(1000, 1000, 1000) == 0);
}

void ForbidCalls() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 2),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {std::size(filter), filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) {
    abort();
  }
}

[[noreturn]] void EndThread() {
  // Not pthread_exit: that would make other calls.
  for (;;) syscall(SYS_exit, 0);
}

uint64_t Counter(const std::string& fdinfo, const std::string& name) {
  FILE* file = fopen(fdinfo.c_str(), "re");
  CHILD_CHECK(file);
  const std::string start = "kevent-" + name + ":";
  char line[256];
  unsigned long long value = ~0ull;
  while (fgets(line, sizeof line, file)) {
    if (strncmp(line, start.c_str(), start.size()) == 0) {
      value = strtoull(line + start.size(), nullptr, 10);
    }
  }
  fclose(file);
  CHILD_CHECK(value != ~0ull);
  return value;
}

uint64_t Counter(const Queue& queue, const std::string& name) {
  return Counter("/proc/self/fdinfo/" + std::to_string(queue.fd()), name);
}

// ---- QueueTest ----

const char* ReadingName(Reading reading) {
  return reading == Reading::kRing ? "ring" : "copies";
}

void QueueTest::TearDown() {
  queue_.Close();
  for (int fd : fds_) close(fd);
}

void QueueTest::Reopen(const Options& options, Reading reading) {
  ASSERT_EQ(0, queue_.Open(options));
  reading_ = reading;
  next_sequence_ = 0;
  gaps_ = false;
  kevent_sqe fence = AddUser(0, kFenceData);
  ASSERT_EQ(0, queue_.Make(&fence));
  fence_ = fence.handle;
}

int QueueTest::Own(int fd) {
  EXPECT_GE(fd, 0) << strerror(errno);
  if (fd >= 0) fds_.insert(fd);
  return fd;
}

void QueueTest::CloseOwned(int fd) {
  EXPECT_EQ(1u, fds_.erase(fd));
  EXPECT_EQ(0, close(fd));
}

uint64_t QueueTest::MustAdd(kevent_sqe sqe) {
  EXPECT_EQ(0, queue_.Make(&sqe)) << "source " << int{sqe.source};
  EXPECT_NE(0u, KEVENT_HANDLE_GENERATION(sqe.handle));
  EXPECT_LT(KEVENT_HANDLE_INDEX(sqe.handle), queue_.setup().max_interests);
  return sqe.handle;
}

bool QueueTest::Receive(kevent_entry* entry, int64_t timeout_ns) {
  const int64_t deadline = NowNs() + timeout_ns;
  for (;;) {
    if (reading_ == Reading::kRing && queue_.Take(entry)) break;
    const int64_t left = std::max<int64_t>(0, deadline - NowNs());
    const uint32_t min = timeout_ns > 0 ? 1 : 0;
    int r;
    if (reading_ == Reading::kRing) {
      r = queue_.Wait(min, left);
      if (r == 0 && left == 0) return false;
      if (r > 0 && queue_.Unread() == 0) {
        ADD_FAILURE() << "KEVENT_ENTER tells of entries that are not there";
        return false;
      }
    } else {
      r = queue_.Copy({entry, 1}, min, left);
      if (r == 1) break;
      if (r == 0 && left == 0) return false;
    }
    if (r < 0 && r != -EINTR) {
      ADD_FAILURE() << "KEVENT_ENTER failed: " << strerror(-r);
      return false;
    }
  }
  if (gaps_) {
    EXPECT_LE(next_sequence_, entry->sequence);
  } else {
    EXPECT_EQ(next_sequence_, entry->sequence) << Describe(*entry);
  }
  next_sequence_ = entry->sequence + 1;
  EXPECT_EQ(0u, entry->reserved);
  EXPECT_NE((entry->flags & KEVENT_ENTRY_MORE) != 0,
            (entry->flags & KEVENT_ENTRY_DONE) != 0)
      << Describe(*entry);
  return true;
}

kevent_entry QueueTest::Next() {
  kevent_entry entry = {};
  // A test that has failed shall not take long as well.
  if (!Receive(&entry, HasFailure() ? kSecond : PatienceNs())) {
    entry = {};
    entry.handle = kNoHandle;
    ADD_FAILURE() << "no entry came";
  }
  return entry;
}

void ExpectTold(const kevent_entry& entry, uint32_t events) {
  EXPECT_EQ(events, entry.events & events) << Describe(entry);
  EXPECT_EQ(0u, entry.events & ~(events | KEVENT_ERR | KEVENT_HUP))
      << Describe(entry);
}

kevent_entry QueueTest::Expect(uint64_t handle, uint32_t events) {
  kevent_entry entry = Next();
  EXPECT_EQ(handle, entry.handle) << Describe(entry);
  ExpectTold(entry, events);
  return entry;
}

kevent_entry QueueTest::ExpectLast(uint64_t handle) {
  kevent_entry entry = Next();
  EXPECT_EQ(handle, entry.handle) << Describe(entry);
  EXPECT_TRUE(entry.flags & KEVENT_ENTRY_DONE) << Describe(entry);
  EXPECT_FALSE(entry.flags & KEVENT_ENTRY_MORE) << Describe(entry);
  EXPECT_EQ(-ENOENT, queue_.Remove(handle));
  return entry;
}

void QueueTest::ExpectNothing() {
  kevent_entry entry = {};
  if (Receive(&entry, 0)) {
    ADD_FAILURE() << "unexpected " << Describe(entry);
    return;
  }
  ASSERT_EQ(0, queue_.Ready(fence_, ++fences_));
  entry = Next();
  EXPECT_EQ(fence_, entry.handle) << "unexpected " << Describe(entry);
  EXPECT_EQ(fences_, entry.data[0]) << Describe(entry);
}

}  // namespace kevent::raw
