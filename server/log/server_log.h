// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOG_SERVER_LOG_H_
#define SERVER_LOG_SERVER_LOG_H_

#include <atomic>
#include <string>
#include <string_view>
#include <utility>

#include "server/log/tail.h"

namespace kevent::log {

class ServerLog {
 public:
  ServerLog(std::string program, int fd, Tail* tail)
      : program_(std::move(program)), fd_(fd), tail_(tail) {}
  // Lines go to `fd`, which it does not own, and to `tail`, if there is one.

  void Write(Level level, std::string_view text);
  // Any thread: one line, "program: text", if its level is not below that of
  // the log. Bytes that are not visible ASCII or a blank are written as \xHH.

  Level level() const { return level_.load(std::memory_order_relaxed); }
  void SetLevel(Level level) { level_.store(level, std::memory_order_relaxed); }
  // Any thread. kInfo at first.

 private:
  const std::string program_;
  const int fd_;
  Tail* const tail_;
  std::atomic<Level> level_{Level::kInfo};
};
// What a server has to say of itself. Thread-safe.

}  // namespace kevent::log

#endif  // SERVER_LOG_SERVER_LOG_H_
