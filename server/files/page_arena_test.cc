// SPDX-License-Identifier: Apache-2.0
#include "server/files/page_arena.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace kevent::files {
namespace {

constexpr size_t kPage = PageArena::kPage;

bool IsMapped(const char* p) {
  auto address = reinterpret_cast<uintptr_t>(p) / kPage * kPage;
  unsigned char resident;
  return mincore(reinterpret_cast<void*>(address), kPage, &resident) == 0 ||
         errno != ENOMEM;
}

// Bytes that somebody reads on after their memory was given back, as a socket
// does.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : size_(bytes.size()) {
    EXPECT_EQ(0, pipe2(ends_.data(), O_CLOEXEC));
    iovec piece = {const_cast<char*>(bytes.data()), bytes.size()};
    EXPECT_EQ(static_cast<ssize_t>(bytes.size()),
              vmsplice(ends_[1], &piece, 1, 0));
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() {
    close(ends_[0]);
    close(ends_[1]);
  }

  std::string Read() {
    std::string bytes(size_, '\0');
    EXPECT_EQ(static_cast<ssize_t>(size_),
              read(ends_[0], bytes.data(), bytes.size()));
    return bytes;
  }

 private:
  std::array<int, 2> ends_ = {-1, -1};
  size_t size_;
};

TEST(PageArenaTest, GivesWholePages) {
  const auto arena = PageArena::Create();
  const PageArena::Run a = arena->Take(1);
  const PageArena::Run b = arena->Take(kPage + 1);
  ASSERT_TRUE(a && b);
  EXPECT_EQ(kPage, a.size());
  EXPECT_EQ(2 * kPage, b.size());
  EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(a.data()) % kPage);
  EXPECT_EQ(a.data() + kPage, b.data());
  EXPECT_EQ(1u, arena->slabs());
}

TEST(PageArenaTest, RefusesNothingAndTooMuch) {
  const auto arena = PageArena::Create();
  EXPECT_FALSE(arena->Take(0));
  EXPECT_FALSE(arena->Take(PageArena::kMaxRun + 1));
  EXPECT_TRUE(arena->Take(PageArena::kSlab));
  EXPECT_FALSE(PageArena::Run());
}

TEST(PageArenaTest, LargeRunsAreMappedByThemselves) {
  const auto arena = PageArena::Create();
  for (size_t bytes : {PageArena::kSlab + 1, PageArena::kMaxRun}) {
    PageArena::Run run = arena->Take(bytes);
    ASSERT_TRUE(run);
    EXPECT_EQ((bytes + kPage - 1) / kPage * kPage, run.size());
    EXPECT_EQ(0u, arena->slabs());
    memset(run.data(), 'a', run.size());
    Reader reader({run.data() + run.size() - 4 * kPage, 4 * kPage});
    const char* const place = run.data();
    run = PageArena::Run();
    EXPECT_FALSE(IsMapped(place));
    EXPECT_FALSE(IsMapped(place + bytes - 1));
    EXPECT_EQ(std::string(4 * kPage, 'a'), reader.Read());
  }
}

TEST(PageArenaTest, ReadersKeepWhatWasGivenBack) {
  const auto arena = PageArena::Create();
  const PageArena::Run keeps_the_slab = arena->Take(kPage);
  PageArena::Run run = arena->Take(4 * kPage);
  memset(run.data(), 'a', run.size());
  Reader reader({run.data(), run.size()});
  char* const place = run.data();
  run = PageArena::Run();
  const PageArena::Run next = arena->Take(4 * kPage);
  ASSERT_EQ(place, next.data());
  EXPECT_EQ('\0', *next.data()) << "the page of before";
  memset(next.data(), 'b', next.size());
  EXPECT_EQ(std::string(4 * kPage, 'a'), reader.Read());
}

TEST(PageArenaTest, ReadersKeepTheLastOfASlab) {
  const auto arena = PageArena::Create();
  PageArena::Run run = arena->Take(4 * kPage);
  memset(run.data(), 'a', run.size());
  Reader reader({run.data(), run.size()});
  const char* const place = run.data();
  run = PageArena::Run();
  EXPECT_EQ(0u, arena->slabs());
  EXPECT_FALSE(IsMapped(place));
  EXPECT_EQ(std::string(4 * kPage, 'a'), reader.Read());
}

TEST(PageArenaTest, RunsOutliveTheArena) {
  auto arena = PageArena::Create();
  PageArena::Run run = arena->Take(10);
  arena.reset();
  memset(run.data(), 'a', run.size());
  EXPECT_EQ('a', run.data()[kPage - 1]);
}

// Against a list of what is taken.
TEST(PageArenaTest, RunsAreNobodyElses) {
  const auto arena = PageArena::Create();
  const auto seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::minstd_rand random(seed);
  std::vector<PageArena::Run> runs;
  size_t taken = 0;
  for (int turn = 0; turn < 4'000; ++turn) {
    if (runs.empty() || (taken < 4 * PageArena::kSlab && random() % 2 == 0)) {
      PageArena::Run run = arena->Take(random() % (200 * kPage) + 1);
      ASSERT_TRUE(run);
      for (size_t at = 0; at < run.size(); at += kPage) {
        ASSERT_EQ(0, run.data()[at]) << "taken already";
        run.data()[at] = 1;
      }
      taken += run.size();
      runs.push_back(std::move(run));
    } else {
      std::swap(runs[random() % runs.size()], runs.back());
      taken -= runs.back().size();
      runs.pop_back();
    }
    // With gaps: up to twice of what was ever taken.
    ASSERT_LE(arena->slabs(), 8u);
  }
  runs.clear();
  EXPECT_EQ(0u, arena->slabs());
}

TEST(TextArenaTest, TextsStayAsTheyAre) {
  TextArena arena;
  int owner = 0;
  std::vector<char*> texts;
  for (size_t size = 0; size < 600; ++size) {
    char* const text = arena.New(size, &owner);
    ASSERT_NE(nullptr, text);
    memset(text, static_cast<char>(size), size);
    texts.push_back(text);
  }
  for (size_t size = 0; size < 600; ++size) {
    EXPECT_EQ(&owner, TextArena::Owner(texts[size]));
    EXPECT_EQ(std::string(size, static_cast<char>(size)),
              std::string(texts[size], size));
  }
}

TEST(TextArenaTest, LongOnesBeginWithAPage) {
  TextArena arena;
  int owners[3];
  std::vector<std::pair<char*, size_t>> texts;
  for (size_t i = 0; i < 60; ++i) {
    const size_t sizes[] = {100 + i, kPage, kPage + 1 + i * 1000};
    for (size_t k = 0; k < 3; ++k) {
      char* const text = arena.New(sizes[k], &owners[k]);
      ASSERT_NE(nullptr, text);
      if (sizes[k] > kPage) {
        EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(text) % kPage);
      }
      TextArena::Lend(text);
      memset(text, static_cast<char>(i * 3 + k), sizes[k]);
      texts.emplace_back(text, sizes[k]);
    }
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto [text, size] = texts[i];
    EXPECT_EQ(&owners[i % 3], TextArena::Owner(text));
    EXPECT_TRUE(std::string(size, static_cast<char>(i)) ==
                std::string(text, size));
    TextArena::Return(text);
  }
}

TEST(TextArenaTest, RefusesWhatIsTooLong) {
  TextArena arena;
  EXPECT_NE(nullptr, arena.New(TextArena::kMaxText, nullptr));
  EXPECT_EQ(nullptr, arena.New(TextArena::kMaxText + 1, nullptr));
}

// Fills what is left of a slab.
void Fill(TextArena* arena) {
  for (const uint32_t now = arena->generation(); arena->generation() == now;) {
    ASSERT_NE(nullptr, arena->New(TextArena::kMaxText, nullptr));
  }
}

TEST(TextArenaTest, ASlabStaysForWhatIsLent) {
  TextArena arena;
  char* const lent = arena.New(100, nullptr);
  memset(lent, 'a', 100);
  char* const not_lent = arena.New(100, nullptr);
  const uint32_t generation = arena.generation();
  TextArena::Lend(lent);
  TextArena::Lend(lent);
  Fill(&arena);
  EXPECT_NE(generation, arena.generation());
  EXPECT_TRUE(IsMapped(not_lent)) << "their slab is the same";
  TextArena::Return(lent);
  EXPECT_EQ(std::string(100, 'a'), std::string(lent, 100));
  TextArena::Return(lent);
  EXPECT_FALSE(IsMapped(lent));
}

TEST(TextArenaTest, ASlabThatIsFullAndNotLentGoes) {
  TextArena arena;
  char* const text = arena.New(100, nullptr);
  memset(text, 'a', 100);
  TextArena::Lend(text);
  TextArena::Return(text);
  ASSERT_TRUE(IsMapped(text)) << "there is room for more";
  EXPECT_EQ('a', *text);
  Fill(&arena);
  // The next one may be in its place.
  EXPECT_TRUE(!IsMapped(text) || *text == '\0');
}

// Each is held by one text. Then there are no new ones, and the generation says
// that the old ones are not to be lent either: their slab may be gone.
TEST(TextArenaTest, FewFullSlabsWait) {
  TextArena arena;
  std::vector<char*> lent;
  uint32_t generation = arena.generation();
  while (char* const text = arena.New(TextArena::kMaxText, nullptr)) {
    if (!lent.empty() && arena.generation() == generation) continue;
    generation = arena.generation();
    TextArena::Lend(text);
    lent.push_back(text);
    ASSERT_LE(lent.size(), TextArena::kMaxFull);
  }
  EXPECT_EQ(lent.size(), TextArena::kMaxFull);
  EXPECT_EQ(arena.full(), TextArena::kMaxFull);
  EXPECT_NE(arena.generation(), generation);
  EXPECT_EQ(nullptr, arena.New(1, nullptr));
  TextArena::Return(lent.back());
  lent.pop_back();
  EXPECT_EQ(arena.full(), TextArena::kMaxFull - 1);
  EXPECT_NE(nullptr, arena.New(1, nullptr));
  for (char* text : lent) TextArena::Return(text);
  EXPECT_EQ(arena.full(), 0u);
}

TEST(TextArenaTest, WhatIsLentOutlivesTheArena) {
  char* text;
  {
    TextArena arena;
    text = arena.New(100, nullptr);
    memset(text, 'a', 100);
    TextArena::Lend(text);
  }
  EXPECT_EQ(std::string(100, 'a'), std::string(text, 100));
  TextArena::Return(text);
  EXPECT_FALSE(IsMapped(text));
}

}  // namespace
}  // namespace kevent::files
