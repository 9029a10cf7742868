// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOG_TAIL_H_
#define SERVER_LOG_TAIL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace kevent::log {

enum class Level : uint8_t { kDebug, kInfo, kWarning, kError };

struct Line {
  enum class Kind : uint8_t { kServer, kAccess };
  Kind kind = Kind::kServer;
  Level level = Level::kInfo;
  uint32_t worker = 0;  // kAccess
  int64_t time_ns = 0;  // CLOCK_REALTIME
  std::string text;     // ASCII, without a newline
};

using Lines = std::shared_ptr<const std::vector<Line>>;

class Tail {
 public:
  static constexpr size_t kRecent = 256;

  using Sink = std::function<void(const Lines&)>;
  using Wanted = std::function<void(bool access)>;

  void SetWanted(Wanted wanted);
  // Called, by whichever thread starts or stops the tail, with whether lines of
  // accesses are wanted from now on.

  void Start(Sink sink);
  // `sink` gets all lines from now on, in the threads that publish them; it
  // must be quick, and must not call the tail.
  void Stop();
  // When this returns the sink is not called any more.

  void Publish(std::vector<Line> lines);
  // Any thread. Lines of the server itself are kept among the recent ones.

  std::vector<Line> Recent(size_t count) const;
  // The last lines of the server itself, oldest first.

 private:
  mutable std::mutex mutex_;
  std::deque<Line> recent_;
  Sink sink_;
  Wanted wanted_;
};
// From those who log to the one who looks on. Thread-safe.

}  // namespace kevent::log

#endif  // SERVER_LOG_TAIL_H_
