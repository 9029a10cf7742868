// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOG_ACCESS_LOG_H_
#define SERVER_LOG_ACCESS_LOG_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace kevent::log {

class AccessLog {
 public:
  static absl::StatusOr<std::unique_ptr<AccessLog>> Open(
      const std::string& path);
  // Opens for appending and makes the file if need be (mode 0640). Several logs
  // on one file do not mix their lines: each write holds whole ones.

  ~AccessLog();
  // Writes what is buffered.

  struct Record {
    int fd;                   // connection, asked for the peer's address
    std::string_view date;    // of now, as in a Date field
    std::string_view method;  // empty if it was not understood
    std::string_view target;
    int status;
    uint64_t bytes;
    int64_t duration_ns;
  };

  static void Append(const Record& record, std::string* out);
  // Appends a line, and no newline: peer [date] "method target" status bytes
  // microseconds. Quotes, backslashes and bytes that are not visible ASCII are
  // written as \xHH, so that a client cannot forge lines or reach a terminal.

  void Write(const Record& record);
  // Buffers such a line.

  void Flush();
  // Hands the buffer to the kernel. Lines that cannot be written are dropped
  // and counted; Write flushes by itself when the buffer is full.

  uint64_t dropped() const { return dropped_; }  // lines

 private:
  explicit AccessLog(int fd) : fd_(fd) { buffer_.reserve(kBuffer); }

  static constexpr size_t kBuffer = 64 << 10;
  static constexpr size_t kMaxTarget = 2048;  // of a target, in a line

  const int fd_;
  uint64_t lines_ = 0;  // in the buffer
  uint64_t dropped_ = 0;
  std::string buffer_;
};
// A buffered log of responses. One thread.

}  // namespace kevent::log

#endif  // SERVER_LOG_ACCESS_LOG_H_
