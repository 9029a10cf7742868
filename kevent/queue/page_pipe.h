// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_QUEUE_PAGE_PIPE_H_
#define KEVENT_QUEUE_PAGE_PIPE_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kevent::internal {

class PagePipe {
 public:
  static constexpr int kBytes = 1 << 20;
  // What goes out with a pair of calls: the default of fs.pipe-max-size. Who
  // has many pipes may be refused that much: then it takes more calls.

  PagePipe() = default;
  PagePipe(const PagePipe&) = delete;
  PagePipe& operator=(const PagePipe&) = delete;
  ~PagePipe();

  bool Open();
  // Makes the pipe at the first call. False: it cannot be had now (EMFILE), or
  // never (the process may not call vmsplice(2) or splice(2)).

  int Send(int fd, std::span<iovec> pieces, bool more, int64_t* sent);
  // Hands `pieces` (changed) to a non-blocking stream socket; never blocks. 0
  // when all are out; -EAGAIN when the socket is full, which announces room
  // then; -ENOSYS when it does not work here or now, send(2) may; other
  // negative errno. `*sent` says how many bytes went out. `more` as MSG_MORE.

  void Expect(std::span<const iovec> messages);
  // What the next Sends ask for, of one piece each and in this order: a call
  // puts in as many as there is room for. The memory must stay until Forget.
  bool expects() const { return next_ < expected_.size(); }
  void Forget();
  // What no Send has asked for is dropped.

 private:
  ssize_t Put(std::span<iovec> pieces);
  void Fill();
  void ExpectNothing() {
    expected_.clear();
    next_ = filled_ = 0;
  }
  ssize_t TakeExpected(std::span<const iovec> pieces);
  ssize_t InPipe(size_t n) const;
  bool Empty(int64_t bytes);
  void Close();

  int read_ = -1;
  int write_ = -1;
  int null_ = -1;
  bool forbidden_ = false;
  std::vector<iovec> expected_;
  size_t next_ = 0;        // of expected_; those before it were asked for
  size_t filled_ = 0;      // those before it were put in
  size_t last_bytes_ = 0;  // of the last of these, as much as there was room
};
// Memory goes to a socket without being copied: its pages into a pipe by
// vmsplice(2), and out of it by splice(2). What the socket does not take is
// dropped, so between calls the pipe holds nothing but what is expected. Not
// thread-safe.

}  // namespace kevent::internal

#endif  // KEVENT_QUEUE_PAGE_PIPE_H_
