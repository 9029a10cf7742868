// SPDX-License-Identifier: Apache-2.0
//
// Bodies that are often asked for, in pages.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/files/file_cache.h"
#include "server/files/file_cache_fixture.h"

namespace kevent::files {
namespace {

namespace fs = std::filesystem;

class PagesTest : public FileCacheTest {
 protected:
  PagesTest() {
    options_.max_body_bytes = 10'000;
    options_.min_page_bytes = 6'000;
    options_.max_page_bytes = 100'000;
    options_.page_uses = 5;
  }

  static std::string Text(size_t size) {
    std::string text(size, 0);
    for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i % 251);
    return text;
  }

  // As often as it takes.
  EntryRef GetHot(std::string_view path) {
    for (int i = 0; i < options_.page_uses; ++i) Get(path);
    return Get(path);
  }
};

TEST_F(PagesTest, WhatIsUsedOften) {
  const std::string text(16'384, 'x');
  Write("a/x", text);
  const EntryRef first = Get("a/x");
  EXPECT_FALSE(first->has_body());
  EXPECT_EQ(cache().stats().descriptors, 1u);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Get("a/x").get(), first.get());
  const EntryRef entry = Get("a/x");
  EXPECT_NE(entry.get(), first.get());
  ASSERT_TRUE(entry->in_pages());
  EXPECT_TRUE(entry->has_body());
  EXPECT_EQ(entry->fd(), -1);
  EXPECT_EQ(entry->body(), text);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(entry->body().data()) % 4096, 0u);
  EXPECT_EQ(entry->head(), "head of a/x;");
  EXPECT_EQ(entry->etag(), first->etag());
  EXPECT_TRUE(entry->watched());
  // And so it stays.
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Get("a/x").get(), entry.get());
  const FileCache::Stats stats = cache().stats();
  EXPECT_EQ(stats.entries, 1u);
  EXPECT_EQ(stats.descriptors, 0u);
  EXPECT_EQ(stats.body_bytes, 16'384u);
  EXPECT_EQ(stats.watches, 3u);
  EXPECT_EQ(heads_made_, 2);
  EXPECT_EQ(Content(*first), text) << "it may still be under way";
}

TEST_F(PagesTest, SmallOnesAreCopiedUntilThen) {
  Write("x", std::string(6'000, 'x'));
  const EntryRef first = Get("x");
  EXPECT_TRUE(first->has_body());
  EXPECT_FALSE(first->in_pages());
  const EntryRef entry = GetHot("x");
  EXPECT_TRUE(entry->in_pages());
  EXPECT_EQ(entry->body(), first->body());
}

TEST_F(PagesTest, OnlyOfTheSizesTheyPayFor) {
  for (auto [size, in_pages] :
       std::vector<std::pair<size_t, bool>>{{0, false},
                                            {5'999, false},
                                            {6'000, true},
                                            {10'001, true},
                                            {100'000, true},
                                            {100'001, false}}) {
    const std::string name = std::to_string(size);
    Write(name, std::string(size, 'x'));
    const EntryRef entry = GetHot(name);
    EXPECT_EQ(entry->in_pages(), in_pages) << size;
    EXPECT_EQ(Content(*entry).size(), size);
  }
}

TEST_F(PagesTest, NoneIfNotWanted) {
  options_.max_page_bytes = 0;
  Write("x", std::string(8'000, 'x'));
  Write("y", std::string(16'000, 'y'));
  EXPECT_FALSE(GetHot("x")->in_pages());
  EXPECT_TRUE(Get("x")->has_body());
  EXPECT_FALSE(GetHot("y")->has_body());
}

TEST_F(PagesTest, ChangesShow) {
  Write("x", std::string(16'000, 'x'));
  const EntryRef old = GetHot("x");
  Write("x", std::string(16'000, 'y'));
  EXPECT_EQ(Content("x"), std::string(16'000, 'y'));
  EXPECT_EQ(old->body(), std::string(16'000, 'x'));
  const EntryRef entry = GetHot("x");
  EXPECT_TRUE(entry->in_pages());
  EXPECT_EQ(entry->body(), std::string(16'000, 'y'));
}

TEST_F(PagesTest, LargeOnesComePieceByPiece) {
  options_.max_page_bytes = 300'000;
  const std::string text = Text(300'000);
  Write("x", text);
  const EntryRef first = Get("x");
  for (int use = 1; use <= 6; ++use) EXPECT_EQ(Get("x").get(), first.get());
  EXPECT_FALSE(first->has_body());
  EXPECT_EQ(cache().stats().body_bytes, 0u);
  const EntryRef entry = Get("x");  // the third piece
  ASSERT_TRUE(entry->in_pages());
  EXPECT_TRUE(entry->body() == text);
  EXPECT_EQ(heads_made_, 2);
}

TEST_F(PagesTest, AChangeBetweenPieces) {
  use_source_ = false;
  options_.revalidate_ns = kSecond;
  options_.max_page_bytes = 400'000;
  Write("x", std::string(300'000, 'x'));
  for (int use = 0; use <= 5; ++use) Get("x");  // the first piece is there
  Write("x", std::string(300'001, 'y'));
  for (int use = 0; use < 100; ++use) EXPECT_FALSE(Get("x")->in_pages());
  now_ += options_.revalidate_ns;
  for (int use = 0; use < 100; ++use) Get("x");
  ASSERT_TRUE(Get("x")->in_pages());
  EXPECT_TRUE(Get("x")->body() == std::string(300'001, 'y'));
}

// What was read is not what the new watch finds.
TEST_F(PagesTest, AChangeWhileAWatchIsTaken) {
  for (size_t size : {16'000u, 300'000u}) {
    options_.max_page_bytes = 400'000;
    source_.fail_with = -ENOSPC;
    Write("x", std::string(size, 'x'));
    EntryRef first = Get("x");
    EXPECT_FALSE(first->watched());
    source_.fail_with = 0;
    now_ += options_.watch_retry_ns;
    source_.on_add = [&](const struct stat& st) {
      if (S_ISREG(st.st_mode)) Write("x", std::string(size + 9'000, 'y'));
    };
    for (int use = 0; use < 7 && Get("x").get() == first.get(); ++use) {
    }
    source_.on_add = nullptr;
    EXPECT_NE(Get("x").get(), first.get());
    EXPECT_FALSE(Get("x")->in_pages());
    EXPECT_TRUE(Content("x") == std::string(size + 9'000, 'y'));
    cache_.reset();
  }
}

// It was young when the first piece was read.
TEST_F(PagesTest, StoresBetweenPiecesShowAtTheNextRevalidation) {
  if (OnTmpfs()) GTEST_SKIP() << "never, on a tmpfs";
  static int64_t later_ns;
  later_ns = 0;
  options_.wall_clock_ns = [] { return WallClockNs() + later_ns; };
  options_.revalidate_ns = kSecond;
  options_.max_page_bytes = 300'000;
  Write("x", std::string(300'000, 'x'));
  const int fd = open((dir_ / "x").c_str(), O_RDWR | O_CLOEXEC);
  void* const map =
      mmap(nullptr, 300'000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  ASSERT_NE(map, MAP_FAILED);
  static_cast<char*>(map)[0] = 'y';
  for (int use = 0; use <= 5; ++use) Get("x");
  static_cast<char*>(map)[0] = 'z';
  later_ns = options_.settle_ns + kSecond;
  for (int use = 0; use < 2; ++use) Get("x");
  ASSERT_TRUE(Get("x")->in_pages());
  now_ += kSecond;
  EXPECT_EQ(Content("x").front(), 'z');
  munmap(map, 300'000);
}

// What clients have not taken yet of bodies that had to go.
TEST_F(PagesTest, ThoseThatAreLentAreNotWithoutLimit) {
  options_.max_total_body_bytes = 100'000;
  std::vector<EntryRef> lent;
  for (int i = 0; i < 10; ++i) {
    const std::string name = std::to_string(i);
    Write(name, std::string(40'000, 'x'));
    lent.push_back(GetHot(name));
    EXPECT_EQ(lent.back()->in_pages(), i < 4) << i;
  }
  lent.clear();
  for (int use = 0; use < 10; ++use) Get("9");
  EXPECT_TRUE(Get("9")->in_pages());
}

TEST_F(PagesTest, OneThatShrinksWhileItIsRead) {
  use_source_ = false;
  options_.revalidate_ns = kSecond;
  options_.max_page_bytes = 300'000;
  Write("x", std::string(300'000, 'x'));
  for (int use = 0; use <= 5; ++use) Get("x");
  fs::resize_file(dir_ / "x", 9'000);
  EXPECT_FALSE(Get("x")->in_pages());
  now_ += options_.revalidate_ns;
  EXPECT_EQ(Content("x"), std::string(9'000, 'x'));
}

// They would be compared as a whole until then.
TEST_F(PagesTest, VeryLargeOnesWaitUntilTheyHaveSettled) {
  static int64_t later_ns;
  later_ns = 0;
  options_.wall_clock_ns = [] { return WallClockNs() + later_ns; };
  options_.max_page_bytes = 2 << 20;
  const std::string text = Text((1 << 20) + 1);
  Write("large", std::string(1 << 20, 'x'));
  Write("very large", text);
  for (int use = 0; use < 100; ++use) {
    Get("large");
    EXPECT_FALSE(Get("very large")->in_pages());
  }
  EXPECT_TRUE(Get("large")->in_pages());
  later_ns = options_.settle_ns + kSecond;
  for (int use = 0; use < 20; ++use) Get("very large");
  ASSERT_TRUE(Get("very large")->in_pages());
  EXPECT_TRUE(Get("very large")->body() == text);
}

TEST_F(PagesTest, LargeOnesComeOneAfterTheOther) {
  options_.max_page_bytes = 300'000;
  Write("y", std::string(300'000, 'y'));
  Write("z", std::string(300'000, 'z'));
  for (int use = 0; use <= 5; ++use) Get("y");
  for (int use = 0; use < 100; ++use) EXPECT_FALSE(Get("z")->has_body());
  // Nobody asks for the first one any more.
  now_ += 11 * kSecond;
  for (int use = 0; use < 20; ++use) Get("z");
  EXPECT_TRUE(Get("z")->in_pages());
  for (int use = 0; use < 30; ++use) Get("y");
  ASSERT_TRUE(Get("y")->in_pages());
  EXPECT_TRUE(Get("y")->body() == std::string(300'000, 'y'));
}

TEST_F(PagesTest, OneThatIsDroppedWhileItIsRead) {
  options_.max_page_bytes = 300'000;
  Write("x", std::string(300'000, 'x'));
  Write("y", std::string(300'000, 'y'));
  for (int use = 0; use <= 5; ++use) Get("x");
  EXPECT_EQ(cache().Purge("x"), 1u);
  for (int use = 0; use < 20; ++use) Get("y");
  EXPECT_TRUE(Get("y")->in_pages()) << "nothing is in its way";
  for (int use = 0; use < 20; ++use) Get("x");
  EXPECT_TRUE(Get("x")->body() == std::string(300'000, 'x'));
  for (int use = 0; use <= 5; ++use) Get("x");
  cache_.reset();
}

TEST_F(PagesTest, StoresThroughAMappingShowAtTheNextRevalidation) {
  if (OnTmpfs()) GTEST_SKIP() << "never, on a tmpfs";
  options_.wall_clock_ns = &WallClockNs;
  options_.revalidate_ns = kSecond;
  Write("x", std::string(16'000, 'x'));
  ASSERT_TRUE(GetHot("x")->in_pages());
  const int fd = open((dir_ / "x").c_str(), O_RDWR | O_CLOEXEC);
  void* const map =
      mmap(nullptr, 16'000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  ASSERT_NE(map, MAP_FAILED);
  static_cast<char*>(map)[15'999] = 'y';
  now_ += kSecond;
  EXPECT_EQ(Content("x").back(), 'y');
  munmap(map, 16'000);
}

TEST_F(PagesTest, KeepToTheBudget) {
  options_.max_total_body_bytes = 49'000;
  for (int i = 0; i < 10; ++i) {
    const std::string name = std::to_string(i);
    Write(name, std::string(16'000, 'x'));
    EXPECT_TRUE(GetHot(name)->in_pages());
    EXPECT_LE(cache().stats().body_bytes, 49'000u);
  }
  EXPECT_EQ(cache().stats().entries, 2u);  // whole pages count
  Write("big", std::string(90'000, 'x'));
  EXPECT_FALSE(GetHot("big")->in_pages());
  EXPECT_EQ(Content("big").size(), 90'000u);
  cache().PurgeAll();
  EXPECT_EQ(cache().stats().body_bytes, 0u);
}

TEST_F(PagesTest, WhatDoesNotFitIsTriedOnce) {
  options_.max_total_body_bytes = 10'000;
  Write("x", std::string(16'000, 'x'));
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(Get("x")->has_body());
  const FileCache::Stats stats = cache().stats();
  EXPECT_EQ(stats.revalidations, 0u);
  EXPECT_EQ(stats.hits, 99u);
  EXPECT_EQ(heads_made_, 1);
}

TEST_F(PagesTest, WhatWasColdIsTriedAgain) {
  const std::string text(16'000, 'x');
  std::string name;
  const EntryRef cold = GetCold(text, options_.page_uses + 1, &name);
  if (!cold) GTEST_SKIP() << "no cold files on this file system";
  ASSERT_FALSE(cold->in_pages());
  EXPECT_EQ(Content(*cold), text);  // pulls it in
  const uint64_t revalidations = cache().stats().revalidations;
  int uses = 0;
  while (uses < 1'000 && !Get(name)->in_pages()) ++uses;
  EXPECT_GE(uses, options_.page_uses);
  EXPECT_LT(uses, 1'000);
  EXPECT_EQ(cache().stats().revalidations, revalidations + 1);
  EXPECT_EQ(Content(name), text);
}

TEST_F(PagesTest, OutliveTheCache) {
  Write("x", std::string(16'000, 'x'));
  const EntryRef entry = GetHot("x");
  cache_.reset();
  EXPECT_EQ(entry->body(), std::string(16'000, 'x'));
}

TEST_F(PagesTest, WithoutADescriptorToSpare) {
  Write("x", std::string(16'000, 'x'));
  const EntryRef entry = Get("x");
  {
    const DescriptorLimit limit(0);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(Get("x").get(), entry.get());
  }
  EXPECT_TRUE(GetHot("x")->in_pages());
}

}  // namespace
}  // namespace kevent::files
