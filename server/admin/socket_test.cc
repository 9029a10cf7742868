// SPDX-License-Identifier: Apache-2.0
#include "server/admin/socket.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/net/address.h"

namespace kevent::admin {
namespace {

using testing::HasSubstr;

class SocketTest : public testing::Test {
 protected:
  SocketTest() {
    if (!mkdtemp(dir_.data())) abort();
  }
  ~SocketTest() override {
    std::error_code error;
    std::filesystem::remove_all(dir_, error);
  }
  static mode_t ModeOf(const std::string& path) {
    struct stat st;
    return lstat(path.c_str(), &st) < 0 ? 0 : st.st_mode & 07777;
  }
  static net::Address Parse(const std::string& text) {
    auto address = net::Address::Parse(text);
    EXPECT_TRUE(address.ok()) << address.status();
    return address.value_or(net::Address());
  }

  std::string dir_ = "/tmp/kevent-socket.XXXXXX";
};

TEST_F(SocketTest, DefaultComesFromTheEnvironment) {
  unsetenv("RUNTIME_DIRECTORY");
  unsetenv("XDG_RUNTIME_DIR");
  EXPECT_EQ(DefaultSocket(), "unix:/run/kevent/admin.sock");
  setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
  EXPECT_EQ(DefaultSocket(), "unix:/run/user/7/kevent/admin.sock");
  setenv("RUNTIME_DIRECTORY", "/run/keventd:/run/other", 1);
  EXPECT_EQ(DefaultSocket(), "unix:/run/keventd/admin.sock");
  setenv("RUNTIME_DIRECTORY", "relative", 1);
  setenv("XDG_RUNTIME_DIR", "", 1);
  EXPECT_EQ(DefaultDirectory(), "/run/kevent");
}

TEST_F(SocketTest, DirectoryIsPrivate) {
  const std::string path = dir_ + "/own";
  umask(0);
  ASSERT_TRUE(MakePrivateDirectory(path).ok());
  EXPECT_EQ(ModeOf(path), 0700u);
  EXPECT_TRUE(MakePrivateDirectory(path).ok()) << "it may be there";
  chmod(path.c_str(), 0755);
  EXPECT_TRUE(MakePrivateDirectory(path).ok()) << "as systemd makes it";
  for (mode_t mode : {0770, 0707, 0777}) {
    chmod(path.c_str(), mode);
    EXPECT_EQ(MakePrivateDirectory(path).code(),
              absl::StatusCode::kFailedPrecondition);
  }
  ASSERT_EQ(symlink(dir_.c_str(), (dir_ + "/link").c_str()), 0);
  EXPECT_FALSE(MakePrivateDirectory(dir_ + "/link").ok());
  EXPECT_EQ(MakePrivateDirectory(dir_ + "/a/b").code(),
            absl::StatusCode::kNotFound);
}

TEST_F(SocketTest, SocketIsItsOwnersAlone) {
  const std::string path = dir_ + "/admin.sock";
  umask(0);
  auto listener = ListenPrivately(Parse("unix:" + path));
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_EQ(ModeOf(path), 0600u);
  auto second = ListenPrivately(Parse("unix:" + path));
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  // What a killed server leaves behind is replaced.
  close(listener->Release());
  auto third = ListenPrivately(Parse("unix:" + path));
  EXPECT_TRUE(third.ok()) << third.status();
}

TEST_F(SocketTest, RefusesWhatHasNoOwner) {
  for (const char* text : {"127.0.0.1:9000", "[::1]:9000", "unix:@name"}) {
    auto listener = ListenPrivately(Parse(text));
    EXPECT_EQ(listener.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(listener.status().message()), HasSubstr(text));
  }
}

}  // namespace
}  // namespace kevent::admin
