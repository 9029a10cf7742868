// SPDX-License-Identifier: Apache-2.0
#include "server/log/tail.h"

#include <algorithm>
#include <utility>

namespace kevent::log {

void Tail::SetWanted(Wanted wanted) {
  std::lock_guard lock(mutex_);
  wanted_ = std::move(wanted);
}

void Tail::Start(Sink sink) {
  Wanted wanted;
  {
    std::lock_guard lock(mutex_);
    sink_ = std::move(sink);
    wanted = wanted_;
  }
  if (wanted) wanted(true);
}

void Tail::Stop() {
  Wanted wanted;
  {
    std::lock_guard lock(mutex_);
    sink_ = nullptr;
    wanted = wanted_;
  }
  if (wanted) wanted(false);
}

void Tail::Publish(std::vector<Line> lines) {
  std::lock_guard lock(mutex_);
  for (const Line& line : lines) {
    if (line.kind != Line::Kind::kServer) continue;
    recent_.push_back(line);
    if (recent_.size() > kRecent) recent_.pop_front();
  }
  if (sink_) {
    sink_(std::make_shared<const std::vector<Line>>(std::move(lines)));
  }
}

std::vector<Line> Tail::Recent(size_t count) const {
  std::lock_guard lock(mutex_);
  const size_t n = std::min(count, recent_.size());
  return {recent_.end() - static_cast<std::ptrdiff_t>(n), recent_.end()};
}

}  // namespace kevent::log
