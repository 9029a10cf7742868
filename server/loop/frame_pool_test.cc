// SPDX-License-Identifier: Apache-2.0
#include "server/loop/frame_pool.h"

#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace kevent::loop {
namespace {

TEST(FramePoolTest, AFreedBlockIsUsedAgainForItsSizeClass) {
  void* a = FramePool::Allocate(130);
  memset(a, 1, 130);
  FramePool::Free(a, 130);
  void* b = FramePool::Allocate(192);
  EXPECT_EQ(a, b) << "130 and 192 bytes are of one class";
  memset(b, 2, 192);
  void* c = FramePool::Allocate(192);
  EXPECT_NE(b, c);
  FramePool::Free(b, 192);
  FramePool::Free(c, 192);
}

TEST(FramePoolTest, LargeBlocksAreNotKept) {
  size_t before = FramePool::cached_bytes();
  void* a = FramePool::Allocate(FramePool::kLargest + 1);
  memset(a, 1, FramePool::kLargest + 1);
  FramePool::Free(a, FramePool::kLargest + 1);
  EXPECT_EQ(FramePool::cached_bytes(), before);
  a = FramePool::Allocate(FramePool::kLargest);
  FramePool::Free(a, FramePool::kLargest);
  EXPECT_EQ(FramePool::cached_bytes(), before + FramePool::kLargest);
}

TEST(FramePoolTest, TheCacheIsBounded) {
  std::vector<void*> blocks;
  for (size_t i = 0; i < 2 * FramePool::kCachedBytes / 1024; ++i) {
    blocks.push_back(FramePool::Allocate(1024));
  }
  EXPECT_EQ(std::set<void*>(blocks.begin(), blocks.end()).size(),
            blocks.size());
  for (void* block : blocks) FramePool::Free(block, 1024);
  EXPECT_LE(FramePool::cached_bytes(), FramePool::kCachedBytes);
  EXPECT_GT(FramePool::cached_bytes(), FramePool::kCachedBytes / 2);
}

TEST(FramePoolTest, ABlockMayBeFreedInAnotherThread) {
  void* a = FramePool::Allocate(256);
  size_t here = FramePool::cached_bytes();
  std::thread([a] {
    FramePool::Free(a, 256);
    EXPECT_EQ(FramePool::cached_bytes(), 256u);
  }).join();
  EXPECT_EQ(FramePool::cached_bytes(), here);
}

// Freed by a thread_local that was made before the cache, so that it goes
// after.
struct Late {
  void* block = nullptr;
  ~Late() { FramePool::Free(block, 256); }
};

TEST(FramePoolTest, ABlockMayBeFreedAfterTheCacheHasGone) {
  std::thread([] {
    thread_local Late late;
    late.block = FramePool::Allocate(256);
    FramePool::Free(FramePool::Allocate(512), 512);
  }).join();
}

}  // namespace
}  // namespace kevent::loop
