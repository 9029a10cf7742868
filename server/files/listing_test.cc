// SPDX-License-Identifier: Apache-2.0
#include "server/files/listing.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace kevent::files {
namespace {

class ListingTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/listingXXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
    auto root = Root::Create(path_, SymlinkPolicy::kBeneath);
    ASSERT_TRUE(root.ok());
    root_ = std::make_unique<Root>(*std::move(root));
  }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(path_ + "/" + name) << text;
  }

  std::string List(const std::string& directory) {
    std::string page;
    EXPECT_EQ(MakeListing(*root_, directory, &page), 0);
    return page;
  }

  std::string path_;
  std::unique_ptr<Root> root_;
};

TEST_F(ListingTest, DirectoriesFirstThenFilesByName) {
  Write("b.txt", std::string(1536, 'x'));
  Write("a.txt", "");
  mkdir((path_ + "/zoo").c_str(), 0755);
  std::string page = List("");
  size_t zoo = page.find("href=\"./zoo/\"");
  size_t a = page.find("href=\"./a.txt\"");
  size_t b = page.find("href=\"./b.txt\"");
  ASSERT_NE(zoo, std::string::npos);
  ASSERT_NE(a, std::string::npos);
  ASSERT_NE(b, std::string::npos);
  EXPECT_LT(zoo, a);
  EXPECT_LT(a, b);
  EXPECT_NE(page.find("1.5 KiB"), std::string::npos);
  EXPECT_EQ(page.find("../"), std::string::npos);
}

TEST_F(ListingTest, BelowTheRootItLinksUp) {
  mkdir((path_ + "/sub").c_str(), 0755);
  EXPECT_NE(List("sub").find("href=\"../\""), std::string::npos);
}

TEST_F(ListingTest, HostileNamesStayText) {
  Write("<script>alert(1)<\x01&\"x", "");
  Write("javascript:alert(1)", "");
  Write("a b?c#d%2e", "");
  std::string page = List("");
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find('\x01'), std::string::npos);
  EXPECT_NE(page.find("&lt;script&gt;"), std::string::npos);
  EXPECT_NE(page.find("href=\"./javascript%3Aalert%281%29\""),
            std::string::npos);
  EXPECT_NE(page.find("href=\"./a%20b%3Fc%23d%252e\""), std::string::npos);
}

TEST_F(ListingTest, LeavesOutWhatIsNotServed) {
  Write(".hidden", "");
  Write("shown", "");
  ASSERT_EQ(mkfifo((path_ + "/fifo").c_str(), 0644), 0);
  ASSERT_EQ(symlink("/etc/passwd", (path_ + "/escape").c_str()), 0);
  ASSERT_EQ(symlink("nothing", (path_ + "/dangling").c_str()), 0);
  ASSERT_EQ(symlink("shown", (path_ + "/link").c_str()), 0);
  std::string page = List("");
  EXPECT_EQ(page.find("hidden"), std::string::npos);
  EXPECT_EQ(page.find("fifo"), std::string::npos);
  EXPECT_EQ(page.find("escape"), std::string::npos);
  EXPECT_EQ(page.find("dangling"), std::string::npos);
  EXPECT_NE(page.find("./link\""), std::string::npos);
}

TEST_F(ListingTest, ErrorsAreErrnos) {
  Write("file", "");
  std::string page;
  EXPECT_EQ(MakeListing(*root_, "nothing", &page), -ENOENT);
  EXPECT_EQ(MakeListing(*root_, "file", &page), -ENOTDIR);
}

}  // namespace
}  // namespace kevent::files
