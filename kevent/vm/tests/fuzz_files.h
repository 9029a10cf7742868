// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_VM_TESTS_FUZZ_FILES_H_
#define KEVENT_VM_TESTS_FUZZ_FILES_H_

#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <random>
#include <string>

namespace kevent::raw {

inline constexpr int kMutedSignal = 34;
// The first of real time that is ours.

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  uint64_t operator()(uint64_t below) { return random_() % below; }
  bool OneIn(uint64_t n) { return random_() % n == 0; }
  uint64_t Any() { return random_(); }
  template <typename T, size_t kSize>
  T Of(const std::array<T, kSize>& values) {
    return values[random_() % kSize];
  }
  // A number with few or many bits, or at the edge of something.
  uint64_t Number() {
    switch ((*this)(6)) {
      case 0:
        return (*this)(4);
      case 1:
        return uint64_t{1} << (*this)(64);
      case 2:
        return (uint64_t{1} << (*this)(64)) - 1;
      case 3:
        return ~(*this)(4);
      case 4:
        return random_() >> (*this)(64);
      default:
        return random_();
    }
  }

 private:
  std::mt19937_64 random_;
};
// One thread's.

class Files {
 public:
  Files() {
    for (auto& slot : slots_) slot = -1;
  }
  // A regular file that is open all the time.
  int file() const { return file_; }
  void set_file(int fd) { file_ = fd; }
  // Its folder.
  int root() const { return root_; }
  void set_root(int fd) { root_ = fd; }
  int Pick(Dice* dice) { return slots_[(*dice)(slots_.size())]; }
  void Put(Dice* dice, int fd) {
    if (fd < 0) return;
    const int old = slots_[(*dice)(slots_.size())].exchange(fd);
    if (old >= 0) close(old);
  }
  void Drop(Dice* dice) {
    const int old = slots_[(*dice)(slots_.size())].exchange(-1);
    if (old >= 0) close(old);
  }

 private:
  std::array<std::atomic<int>, 64> slots_;
  int file_ = -1;
  int root_ = -1;
};
// Descriptors of all threads. A slot may be closed by anybody at any time, also
// while another thread passes its number to the kernel: that is the point.

void MakeFiles(Dice* dice, Files* files, const std::string& folder);
// One or two more to watch, of any kind.

void Stir(Dice* dice, Files* files, const std::string& folder);
// Something happens at some of them.

}  // namespace kevent::raw

#endif  // KEVENT_VM_TESTS_FUZZ_FILES_H_
