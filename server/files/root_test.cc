// SPDX-License-Identifier: Apache-2.0
#include "server/files/root.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kevent::files {
namespace {

namespace fs = std::filesystem;

using testing::HasSubstr;

class RootTest : public testing::Test {
 protected:
  RootTest() {
    std::string name = testing::TempDir() + "/root_test.XXXXXX";
    base_ = mkdtemp(name.data());
    dir_ = base_ / "www";
    fs::create_directories(dir_ / "a" / "b");
    Write(dir_ / "index.html", "hello");
    Write(dir_ / "a" / "b" / "deep", "deep");
    Write(base_ / "secret", "secret");
  }
  ~RootTest() override { fs::remove_all(base_); }

  static void Write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }

  Root Make(SymlinkPolicy policy = SymlinkPolicy::kBeneath) {
    absl::StatusOr<Root> root = Root::Create(dir_, policy);
    EXPECT_TRUE(root.ok()) << root.status();
    return *std::move(root);
  }

  static std::string Read(const OpenedFile& file) {
    std::string text(100, '\0');
    const ssize_t n = pread(file.fd(), text.data(), text.size(), 0);
    text.resize(n < 0 ? 0 : static_cast<size_t>(n));
    return text;
  }

  fs::path base_, dir_;
};

TEST_F(RootTest, CreateSaysWhatIsWrong) {
  const auto missing = Root::Create(base_ / "none", SymlinkPolicy::kBeneath);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()),
              HasSubstr("none does not exist"));

  const auto file = Root::Create(base_ / "secret", SymlinkPolicy::kBeneath);
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(file.status().message()),
              HasSubstr("secret is not a directory"));

  EXPECT_FALSE(Root::Create("", SymlinkPolicy::kBeneath).ok());
}

TEST_F(RootTest, TheRootItselfMayBeALink) {
  fs::create_symlink(dir_, base_ / "link");
  const auto root = Root::Create(base_ / "link", SymlinkPolicy::kNever);
  ASSERT_TRUE(root.ok()) << root.status();
  OpenedFile file;
  EXPECT_EQ(root->Open("index.html", &file), 0);
}

TEST_F(RootTest, OpensAFileAndReportsIt) {
  const Root root = Make();
  OpenedFile file;
  ASSERT_EQ(root.Open("index.html", &file), 0);
  struct stat st;
  ASSERT_EQ(stat((dir_ / "index.html").c_str(), &st), 0);
  EXPECT_TRUE(file.is_regular());
  EXPECT_FALSE(file.through_symlink);
  EXPECT_EQ(file.info.size, 5u);
  EXPECT_EQ(file.info.ino, st.st_ino);
  EXPECT_EQ(file.info.dev, st.st_dev);
  EXPECT_EQ(file.info.mode, st.st_mode);
  EXPECT_EQ(file.info.mtime_ns,
            st.st_mtim.tv_sec * 1'000'000'000 + st.st_mtim.tv_nsec);
  EXPECT_EQ(Read(file), "hello");
  EXPECT_NE(fcntl(file.fd(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(RootTest, OpensDirectoriesTheRootAmongThem) {
  const Root root = Make();
  OpenedFile file;
  ASSERT_EQ(root.Open("a", &file), 0);
  EXPECT_TRUE(file.is_directory());
  ASSERT_EQ(root.Open("", &file), 0);
  EXPECT_TRUE(file.is_directory());
  struct stat st;
  ASSERT_EQ(stat(dir_.c_str(), &st), 0);
  EXPECT_EQ(file.info.ino, st.st_ino);
}

TEST_F(RootTest, ErrorsAreThoseOfTheSystemAndLeaveTheResultAlone) {
  const Root root = Make();
  OpenedFile file;
  ASSERT_EQ(root.Open("index.html", &file), 0);
  const int fd = file.fd();
  EXPECT_EQ(root.Open("none", &file), -ENOENT);
  EXPECT_EQ(root.Open("none/deep", &file), -ENOENT);
  EXPECT_EQ(root.Open("index.html/x", &file), -ENOTDIR);
  EXPECT_EQ(root.Open(std::string(300, 'n').c_str(), &file), -ENAMETOOLONG);
  EXPECT_EQ(file.fd(), fd);
  EXPECT_EQ(Read(file), "hello");
}

TEST_F(RootTest, NoPathLeadsOut) {
  const Root root = Make();
  OpenedFile file;
  EXPECT_EQ(root.Open("../secret", &file), -EXDEV);
  EXPECT_EQ(root.Open("a/../../secret", &file), -EXDEV);
  EXPECT_EQ(root.Open((base_ / "secret").c_str(), &file), -EXDEV);
  EXPECT_EQ(root.Stat("../secret", &file), -EXDEV);
  EXPECT_EQ(root.StatPlainDirectory("..", &file), -EXDEV);
}

TEST_F(RootTest, LinksThatStayBeneathAreFollowed) {
  fs::create_symlink("a/b/deep", dir_ / "link");
  fs::create_symlink("a", dir_ / "dirlink");
  fs::create_symlink("../../index.html", dir_ / "a" / "b" / "up");
  const Root root = Make();
  OpenedFile file;
  ASSERT_EQ(root.Open("link", &file), 0);
  EXPECT_EQ(Read(file), "deep");
  EXPECT_TRUE(file.through_symlink);
  ASSERT_EQ(root.Open("dirlink/b/deep", &file), 0);
  EXPECT_TRUE(file.through_symlink);
  ASSERT_EQ(root.Open("a/b/up", &file), 0);
  EXPECT_EQ(Read(file), "hello");
  ASSERT_EQ(root.Stat("link", &file), 0);
  EXPECT_TRUE(file.is_regular());
  EXPECT_TRUE(file.through_symlink);
}

TEST_F(RootTest, LinksThatEscapeAreRefused) {
  fs::create_symlink("../secret", dir_ / "relative");
  fs::create_symlink(base_ / "secret", dir_ / "absolute");
  fs::create_symlink(dir_ / "index.html", dir_ / "absolute_inside");
  fs::create_symlink("..", dir_ / "parent");
  const Root root = Make();
  OpenedFile file;
  for (const char* path :
       {"relative", "absolute", "absolute_inside", "parent/secret"}) {
    EXPECT_EQ(root.Open(path, &file), -EXDEV) << path;
    EXPECT_EQ(root.Stat(path, &file), -EXDEV) << path;
  }
}

TEST_F(RootTest, LinksToLinksAndLoops) {
  fs::create_symlink("two", dir_ / "one");
  fs::create_symlink("index.html", dir_ / "two");
  fs::create_symlink("self", dir_ / "self");
  fs::create_symlink("nowhere", dir_ / "dangling");
  const Root root = Make();
  OpenedFile file;
  EXPECT_EQ(root.Open("one", &file), 0);
  EXPECT_EQ(root.Open("self", &file), -ELOOP);
  EXPECT_EQ(root.Open("dangling", &file), -ENOENT);
}

TEST_F(RootTest, PolicyNeverRefusesEveryLink) {
  fs::create_symlink("index.html", dir_ / "link");
  fs::create_symlink("a", dir_ / "dirlink");
  const Root root = Make(SymlinkPolicy::kNever);
  OpenedFile file;
  EXPECT_EQ(root.Open("link", &file), -ELOOP);
  EXPECT_EQ(root.Open("dirlink/b/deep", &file), -ELOOP);
  EXPECT_EQ(root.Stat("link", &file), -ELOOP);
  EXPECT_EQ(root.Open("a/b/deep", &file), 0);
}

TEST_F(RootTest, PlainDirectoryIsNeverALink) {
  fs::create_symlink("a", dir_ / "dirlink");
  const Root root = Make();
  OpenedFile file;
  EXPECT_EQ(root.StatPlainDirectory("", &file), 0);
  EXPECT_EQ(root.StatPlainDirectory("a/b", &file), 0);
  EXPECT_LT(root.StatPlainDirectory("dirlink", &file), 0);
  EXPECT_EQ(root.StatPlainDirectory("dirlink/b", &file), -ELOOP);
  EXPECT_EQ(root.StatPlainDirectory("index.html", &file), -ENOTDIR);
}

TEST_F(RootTest, FifosSocketsAndDevicesAreNotServedAndNeverBlock) {
  ASSERT_EQ(mkfifo((dir_ / "fifo").c_str(), 0644), 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const int sock = socket(AF_UNIX, SOCK_STREAM, 0);
  // By a short relative name: the test's directory may exceed sun_path.
  const fs::path before = fs::current_path();
  fs::current_path(dir_);
  std::strcpy(address.sun_path, "socket");
  const int bound =
      bind(sock, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  fs::current_path(before);
  close(sock);
  ASSERT_EQ(bound, 0);

  const Root root = Make();
  OpenedFile file;
  EXPECT_EQ(root.Open("fifo", &file), -ENXIO);
  EXPECT_EQ(root.Open("socket", &file), -ENXIO);

  const auto dev = Root::Create("/dev", SymlinkPolicy::kBeneath);
  ASSERT_TRUE(dev.ok()) << dev.status();
  EXPECT_EQ(dev->Open("null", &file), -ENXIO);
  EXPECT_EQ(file.fd(), -1);
}

TEST_F(RootTest, MagicLinksAreRefused) {
  const auto proc = Root::Create("/proc/self", SymlinkPolicy::kBeneath);
  ASSERT_TRUE(proc.ok()) << proc.status();
  OpenedFile file;
  EXPECT_LT(proc->Open("exe", &file), 0);
  EXPECT_LT(proc->Open("fd/0", &file), 0);
  EXPECT_LT(proc->Open("root/etc/passwd", &file), 0);
}

TEST_F(RootTest, PermissionsCount) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  chmod((dir_ / "index.html").c_str(), 0);
  chmod((dir_ / "a").c_str(), 0111);
  const Root root = Make();
  OpenedFile file;
  EXPECT_EQ(root.Open("index.html", &file), -EACCES);
  ASSERT_EQ(root.Open("a", &file), 0);
  EXPECT_TRUE(file.is_directory());
  EXPECT_EQ(root.Open("a/b/deep", &file), 0);
  chmod((dir_ / "a").c_str(), 0755);
}

TEST_F(RootTest, FailuresLeakNoDescriptors) {
  ASSERT_EQ(mkfifo((dir_ / "fifo").c_str(), 0644), 0);
  fs::create_symlink("../secret", dir_ / "escape");
  const Root root = Make();
  const int before = dup(0);
  close(before);
  for (int i = 0; i < 100; ++i) {
    OpenedFile file;
    EXPECT_LT(root.Open("fifo", &file), 0);
    EXPECT_LT(root.Open("escape", &file), 0);
    ASSERT_EQ(root.Open("index.html", &file), 0);
    ASSERT_EQ(root.Open("a", &file), 0);
    OpenedFile moved = std::move(file);
    EXPECT_EQ(file.fd(), -1);
  }
  const int after = dup(0);
  close(after);
  EXPECT_EQ(after, before);
}

}  // namespace
}  // namespace kevent::files
