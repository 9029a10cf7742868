// SPDX-License-Identifier: Apache-2.0
#include "server/log/server_log.h"

#include <time.h>
#include <unistd.h>

#include <vector>

namespace kevent::log {

void ServerLog::Write(Level level, std::string_view text) {
  if (level < this->level()) return;
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string clean;
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= ' ' && byte < 0x7f) {
      clean.push_back(c);
    } else {
      clean.append({'\\', 'x', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
  // One write: lines of several threads do not mix.
  const std::string line = program_ + ": " + clean + "\n";
  ssize_t n = write(fd_, line.data(), line.size());
  static_cast<void>(n);  // there is nobody to tell
  if (!tail_) return;
  Line published;
  published.level = level;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  published.time_ns = now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
  published.text = std::move(clean);
  std::vector<Line> lines;
  lines.push_back(std::move(published));
  tail_->Publish(std::move(lines));
}

}  // namespace kevent::log
