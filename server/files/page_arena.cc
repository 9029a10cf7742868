// SPDX-License-Identifier: Apache-2.0
#include "server/files/page_arena.h"

#include <sys/mman.h>

#include <cstring>
#include <new>
#include <utility>

namespace kevent::files {
namespace {

// `bytes`, whole pages, at a multiple of kSlab; null if there are none.
char* Map(size_t bytes) {
  constexpr size_t kSlab = PageArena::kSlab;
  void* const map = mmap(nullptr, bytes + kSlab, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(map);
  const size_t past = reinterpret_cast<uintptr_t>(begin) % kSlab;
  const size_t skip = past == 0 ? 0 : kSlab - past;
  if (skip > 0) munmap(begin, skip);
  munmap(begin + skip + bytes, kSlab - skip);
  // If it may not, small pages do; and they do for the end.
  madvise(begin + skip, bytes / kSlab * kSlab, MADV_HUGEPAGE);
  return begin + skip;
}

char* MapSlab() { return Map(PageArena::kSlab); }

}  // namespace

PageArena::~PageArena() {
  for (const Slab& slab : slabs_) munmap(slab.memory, kSlab);
}

char* PageArena::TakeFrom(Slab* slab, size_t pages) {
  if (slab->pages.size() - slab->taken < pages) return nullptr;
  size_t free = 0;
  for (size_t i = 0; i < slab->pages.size(); ++i) {
    free = slab->pages[i] ? 0 : free + 1;
    if (free < pages) continue;
    const size_t first = i + 1 - pages;
    for (size_t page = first; page <= i; ++page) slab->pages.set(page);
    slab->taken += pages;
    return slab->memory + first * kPage;
  }
  return nullptr;
}

PageArena::Run PageArena::Make(char* data, size_t pages) {
  bytes_ += pages * kPage;
  return {shared_from_this(), data, pages};
}

PageArena::Run PageArena::Take(size_t bytes) {
  if (bytes == 0 || bytes > kMaxRun) return {};
  const size_t pages = (bytes + kPage - 1) / kPage;
  if (bytes > kSlab) {
    char* const memory = Map(pages * kPage);
    if (memory == nullptr) return {};
    return Make(memory, pages);
  }
  for (Slab& slab : slabs_) {
    if (char* const data = TakeFrom(&slab, pages)) return Make(data, pages);
  }
  char* const memory = MapSlab();
  if (memory == nullptr) return {};
  slabs_.push_back({memory, 0, {}});
  return Make(TakeFrom(&slabs_.back(), pages), pages);
}

void PageArena::Give(char* data, size_t pages) {
  bytes_ -= pages * kPage;
  if (pages * kPage > kSlab) {
    munmap(data, pages * kPage);
    return;
  }
  for (Slab& slab : slabs_) {
    if (data < slab.memory || data >= slab.memory + kSlab) continue;
    slab.taken -= pages;
    if (slab.taken == 0) {
      munmap(slab.memory, kSlab);
      slab = slabs_.back();
      slabs_.pop_back();
      return;
    }
    // Sockets keep the pages they have; who takes these next gets others.
    if (madvise(data, pages * kPage, MADV_DONTNEED) < 0) {
      slab.taken += pages;  // then nobody does
      return;
    }
    const size_t first = static_cast<size_t>(data - slab.memory) / kPage;
    for (size_t i = 0; i < pages; ++i) slab.pages.reset(first + i);
    return;
  }
}

// Where a text begins, in bytes of its slab: behind its owner.
size_t TextArena::BeginOf(size_t used, size_t size) {
  const size_t align =
      size > PageArena::kPage ? PageArena::kPage : sizeof(void*);
  return (used + sizeof(void*) + align - 1) / align * align;
}

TextArena::Slab* TextArena::SlabOf(const char* text) {
  return reinterpret_cast<Slab*>(reinterpret_cast<uintptr_t>(text) &
                                 ~uintptr_t{PageArena::kSlab - 1});
}

bool TextArena::HasRoom(size_t size) const {
  return slab_ != nullptr &&
         BeginOf(slab_->used, size) + size <= PageArena::kSlab;
}

char* TextArena::New(size_t size, void* owner) {
  if (size > kMaxText) return nullptr;
  if (!HasRoom(size)) Retire();
  if (slab_ == nullptr) {
    char* const memory = *full_ < kMaxFull ? MapSlab() : nullptr;
    if (memory == nullptr) return nullptr;
    slab_ = new (memory) Slab;
    slab_->used = sizeof(Slab);
  }
  const size_t at = BeginOf(slab_->used, size);
  char* const text = reinterpret_cast<char*>(slab_) + at;
  std::memcpy(text - sizeof(owner), &owner, sizeof(owner));
  slab_->used = at + size;
  return text;
}

void* TextArena::Owner(const char* text) {
  void* owner;
  std::memcpy(&owner, text - sizeof(owner), sizeof(owner));
  return owner;
}

void TextArena::Lend(const char* text) { ++SlabOf(text)->lent; }

void TextArena::Return(const char* text) {
  Slab* const slab = SlabOf(text);
  if (--slab->lent > 0 || slab->full == nullptr) return;
  --*slab->full;
  Unmap(slab);
}

void TextArena::Unmap(Slab* slab) {
  slab->~Slab();
  munmap(slab, PageArena::kSlab);
}

void TextArena::Retire() {
  if (slab_ == nullptr) return;
  ++generation_;
  Slab* const slab = std::exchange(slab_, nullptr);
  if (slab->lent == 0) return Unmap(slab);
  slab->full = full_;
  ++*full_;
}

}  // namespace kevent::files
