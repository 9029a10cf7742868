// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_FILES_PAGE_ARENA_H_
#define SERVER_FILES_PAGE_ARENA_H_

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace kevent::files {

// Memory that sockets may read on for long after it was given back
// (SendOp::by_reference): a page that was given back is a new one when it is
// used again. It comes in slabs of 2 MiB, which the kernel makes huge pages of
// if it may (madvise(2), MADV_HUGEPAGE): their parts are found faster. What is
// larger is mapped by itself. One thread only.
class PageArena : public std::enable_shared_from_this<PageArena> {
 public:
  static constexpr size_t kPage = 4096;
  static constexpr size_t kSlab = size_t{2} << 20;
  static constexpr size_t kMaxRun = size_t{16} << 20;

  // Whole pages, zero at first. Gives them back at its end; keeps the arena.
  class Run {
   public:
    Run() = default;
    Run(Run&& other) noexcept
        : arena_(std::move(other.arena_)),
          data_(std::exchange(other.data_, nullptr)),
          pages_(std::exchange(other.pages_, 0)) {}
    Run& operator=(Run&& other) noexcept {
      std::swap(arena_, other.arena_);
      std::swap(data_, other.data_);
      std::swap(pages_, other.pages_);
      return *this;
    }
    ~Run() {
      if (data_ != nullptr) arena_->Give(data_, pages_);
    }

    explicit operator bool() const { return data_ != nullptr; }
    char* data() const { return data_; }
    size_t size() const { return pages_ * kPage; }

   private:
    friend class PageArena;
    Run(std::shared_ptr<PageArena> arena, char* data, size_t pages)
        : arena_(std::move(arena)), data_(data), pages_(pages) {}

    std::shared_ptr<PageArena> arena_;
    char* data_ = nullptr;
    size_t pages_ = 0;
  };

  static std::shared_ptr<PageArena> Create() {
    return std::shared_ptr<PageArena>(new PageArena);
  }
  ~PageArena();
  PageArena(const PageArena&) = delete;
  PageArena& operator=(const PageArena&) = delete;

  // At least `bytes`, which are 1 to kMaxRun; none if there is no memory.
  Run Take(size_t bytes);

  size_t slabs() const { return slabs_.size(); }
  // Of all runs there are.
  size_t bytes() const { return bytes_; }

 private:
  struct Slab {
    char* memory = nullptr;
    size_t taken = 0;  // pages
    std::bitset<kSlab / kPage> pages;
  };

  PageArena() = default;
  static char* TakeFrom(Slab* slab, size_t pages);
  void Give(char* data, size_t pages);

  Run Make(char* data, size_t pages);

  std::vector<Slab> slabs_;
  size_t bytes_ = 0;
};

// Texts that sockets may read on for long: each is written once, and its place
// is not used again. One of more than a page begins with a page. Slabs are
// given back when they are full and no text in them is lent; one that is a huge
// page stays where it is until no socket has a part of it. One thread only;
// texts may be given back when the object is gone.
class TextArena {
 public:
  // Full slabs that wait for a text to be given back, at most.
  static constexpr size_t kMaxFull = 16;

  // Texts of another generation than the current one are not to be lent anew.
  uint32_t generation() const { return generation_; }
  // Full slabs that wait now.
  size_t full() const { return *full_; }

  TextArena() = default;
  ~TextArena() { Retire(); }
  TextArena(const TextArena&) = delete;
  TextArena& operator=(const TextArena&) = delete;

  // Room for a text of `size` bytes, at most kMaxText, to be written before it
  // is lent. Whatever `owner` says, Owner() tells. Null if there is no memory,
  // or too many slabs wait.
  char* New(size_t size, void* owner);
  static constexpr size_t kMaxText = PageArena::kSlab / 4;
  // Whether it would go into the current slab.
  bool HasRoom(size_t size) const;
  static void* Owner(const char* text);

  // While a text is lent, its memory stays. As many times each.
  static void Lend(const char* text);
  static void Return(const char* text);

 private:
  struct Slab {
    size_t used = 0;               // bytes, these included
    size_t lent = 0;               // texts
    std::shared_ptr<size_t> full;  // the arena's count, of one that is full
  };

  static Slab* SlabOf(const char* text);
  static size_t BeginOf(size_t used, size_t size);
  static void Unmap(Slab* slab);
  void Retire();

  const std::shared_ptr<size_t> full_ = std::make_shared<size_t>(0);
  Slab* slab_ = nullptr;
  uint32_t generation_ = 0;
};

}  // namespace kevent::files

#endif  // SERVER_FILES_PAGE_ARENA_H_
