// SPDX-License-Identifier: Apache-2.0
#include "server/net/listener.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kevent::net {
namespace {

using ::testing::HasSubstr;

int ConnectTo(const Address& address) {
  int fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, address.data(), address.size()) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

int Option(int fd, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  return getsockopt(fd, level, name, &value, &size) < 0 ? -errno : value;
}

TEST(ListenerTest, PortZeroBecomesARealOne) {
  absl::StatusOr<Listener> listener =
      Listener::Listen(*Address::Parse("127.0.0.1:0"), {});
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_NE(listener->address().port(), 0);
  int client = ConnectTo(listener->address());
  ASSERT_GE(client, 0);
  int server = accept(listener->fd(), nullptr, nullptr);
  ASSERT_GE(server, 0);
  EXPECT_EQ(Option(server, IPPROTO_TCP, TCP_NODELAY), 1) << "inherited";
  EXPECT_TRUE(fcntl(listener->fd(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(fcntl(listener->fd(), F_GETFL) & O_NONBLOCK);
  close(client);
  close(server);
}

TEST(ListenerTest, IPv6IsItsOwnUnlessAsked) {
  absl::StatusOr<Listener> only =
      Listener::Listen(*Address::Parse("[::1]:0"), {});
  if (!only.ok()) GTEST_SKIP() << only.status();
  EXPECT_EQ(Option(only->fd(), IPPROTO_IPV6, IPV6_V6ONLY), 1);
  Listener::Options options;
  options.v6_only = false;
  absl::StatusOr<Listener> both =
      Listener::Listen(*Address::Parse("[::]:0"), options);
  ASSERT_TRUE(both.ok()) << both.status();
  Address v4 =
      *Address::Parse("127.0.0.1:" + std::to_string(both->address().port()));
  int client = ConnectTo(v4);
  EXPECT_GE(client, 0);
  if (client >= 0) close(client);
}

TEST(ListenerTest, ABoundAddressIsRefusedUnlessBothReuseThePort) {
  Listener::Options reuse;
  reuse.reuse_port = true;
  absl::StatusOr<Listener> first =
      Listener::Listen(*Address::Parse("127.0.0.1:0"), reuse);
  ASSERT_TRUE(first.ok()) << first.status();
  absl::Status taken = Listener::Listen(first->address(), {}).status();
  EXPECT_EQ(std::string(taken.message()), "cannot listen on " +
                                              first->address().ToString() +
                                              ": Address already in use");
  absl::StatusOr<Listener> second = Listener::Listen(first->address(), reuse);
  EXPECT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->address(), first->address());
}

TEST(ListenerTest, MayWaitForTheFirstBytes) {
  Listener::Options options;
  options.defer_accept_s = 30;
  auto listener = Listener::Listen(*Address::Parse("127.0.0.1:0"), options);
  ASSERT_TRUE(listener.ok()) << listener.status();
  const int client = ConnectTo(listener->address());
  ASSERT_GE(client, 0);
  // Nobody has said anything: for the server there is no connection.
  EXPECT_EQ(accept(listener->fd(), nullptr, nullptr), -1);
  EXPECT_EQ(errno, EAGAIN);
  ASSERT_EQ(send(client, "x", 1, MSG_NOSIGNAL), 1);
  pollfd ready = {listener->fd(), POLLIN, 0};
  ASSERT_EQ(poll(&ready, 1, 10'000), 1);
  const int server = accept(listener->fd(), nullptr, nullptr);
  ASSERT_GE(server, 0);
  char byte;
  EXPECT_EQ(recv(server, &byte, 1, MSG_DONTWAIT), 1);
  close(client);
  close(server);
}

TEST(ListenerTest, ErrorsNameTheAddress) {
  EXPECT_THAT(
      std::string(Listener::Listen(*Address::Parse("192.0.2.1:80"), {})
                      .status()
                      .message()),
      HasSubstr("cannot listen on 192.0.2.1:80: Cannot assign requested"));
  EXPECT_EQ(Listener::Listen(Address(), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

class UnixListenerTest : public testing::Test {
 protected:
  UnixListenerTest() {
    const char* base = getenv("TEST_TMPDIR");
    // Bazel's folder may be deeper than a unix path may be long.
    dir_ = std::string(base && strlen(base) < 60 ? base : "/tmp") +
           "/listener.XXXXXX";
    if (!mkdtemp(dir_.data())) abort();
    path_ = dir_ + "/s";
    address_ = *Address::Parse("unix:" + path_);
  }
  ~UnixListenerTest() override {
    unlink(path_.c_str());
    rmdir(dir_.c_str());
  }
  bool Exists() { return access(path_.c_str(), F_OK) == 0; }

  std::string dir_;
  std::string path_;
  Address address_;
};

TEST_F(UnixListenerTest, MakesAndRemovesItsFile) {
  Listener::Options options;
  options.unix_mode = 0600;
  absl::StatusOr<Listener> listener = Listener::Listen(address_, options);
  ASSERT_TRUE(listener.ok()) << listener.status();
  struct stat st;
  ASSERT_EQ(stat(path_.c_str(), &st), 0);
  EXPECT_TRUE(S_ISSOCK(st.st_mode));
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  int client = ConnectTo(listener->address());
  EXPECT_GE(client, 0);
  close(client);
  Listener moved = *std::move(listener);
  EXPECT_TRUE(Exists());
  moved.Close();
  EXPECT_FALSE(Exists());
  EXPECT_EQ(moved.fd(), -1);
}

TEST_F(UnixListenerTest, ALiveServerKeepsItsPlace) {
  absl::StatusOr<Listener> first = Listener::Listen(address_, {});
  ASSERT_TRUE(first.ok()) << first.status();
  absl::Status second = Listener::Listen(address_, {}).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(
      std::string(second.message()),
      "cannot listen on unix:" + path_ + ": another server answers there");
  EXPECT_TRUE(Exists());
}

TEST_F(UnixListenerTest, ALiveServerWithAFullBacklogKeepsItsPlace) {
  Listener::Options options;
  options.backlog = 0;
  absl::StatusOr<Listener> first = Listener::Listen(address_, options);
  ASSERT_TRUE(first.ok()) << first.status();
  int filler = ConnectTo(address_);
  EXPECT_EQ(Listener::Listen(address_, {}).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Listener::Listen(address_, {}).status().code(),
            absl::StatusCode::kAlreadyExists);
  close(filler);
}

TEST_F(UnixListenerTest, AStaleSocketIsReplaced) {
  int dead = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(bind(dead, address_.data(), address_.size()), 0);
  close(dead);
  ASSERT_TRUE(Exists());
  absl::StatusOr<Listener> listener = Listener::Listen(address_, {});
  ASSERT_TRUE(listener.ok()) << listener.status();
  int client = ConnectTo(address_);
  EXPECT_GE(client, 0);
  close(client);
}

TEST_F(UnixListenerTest, AnotherKindOfFileIsLeftAlone) {
  close(open(path_.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  absl::Status status = Listener::Listen(address_, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is not a socket"));
  EXPECT_TRUE(Exists());
}

TEST_F(UnixListenerTest, ASuccessorsFileIsLeftAlone) {
  absl::StatusOr<Listener> first = Listener::Listen(address_, {});
  ASSERT_TRUE(first.ok());
  unlink(path_.c_str());
  absl::StatusOr<Listener> second = Listener::Listen(address_, {});
  ASSERT_TRUE(second.ok()) << second.status();
  first->Close();
  EXPECT_TRUE(Exists());
}

TEST_F(UnixListenerTest, AReleasedDescriptorStaysOpen) {
  absl::StatusOr<Listener> listener = Listener::Listen(address_, {});
  ASSERT_TRUE(listener.ok());
  int fd = listener->Release();
  listener->Close();
  EXPECT_FALSE(Exists());
  EXPECT_EQ(close(fd), 0);
}

TEST_F(UnixListenerTest, AMissingFolderIsAnError) {
  absl::Status status =
      Listener::Listen(*Address::Parse("unix:" + dir_ + "/no/s"), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
}

TEST(AbstractListenerTest, NeedsNoFile) {
  Address address =
      *Address::Parse("unix:@kevent-listener-test-" + std::to_string(getpid()));
  absl::StatusOr<Listener> listener = Listener::Listen(address, {});
  ASSERT_TRUE(listener.ok()) << listener.status();
  int client = ConnectTo(address);
  EXPECT_GE(client, 0);
  close(client);
  EXPECT_FALSE(Listener::Listen(address, {}).ok());
}

}  // namespace
}  // namespace kevent::net
