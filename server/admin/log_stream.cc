// SPDX-License-Identifier: Apache-2.0
#include "server/admin/log_stream.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <utility>

#include "server/admin/arguments.h"

namespace kevent::admin {

using google::protobuf::util::TimeUtil;

v1::LogLevel ToMessage(log::Level level) {
  switch (level) {
    case log::Level::kDebug:
      return v1::DEBUG;
    case log::Level::kInfo:
      return v1::INFO;
    case log::Level::kWarning:
      return v1::WARNING;
    case log::Level::kError:
      return v1::ERROR;
  }
  return v1::LOG_LEVEL_UNSPECIFIED;
}

log::Level FromMessage(v1::LogLevel level) {
  switch (level) {
    case v1::INFO:
      return log::Level::kInfo;
    case v1::WARNING:
      return log::Level::kWarning;
    case v1::ERROR:
      return log::Level::kError;
    default:
      return log::Level::kDebug;
  }
}

// --- LogStreams.

LogStreams::~LogStreams() {
  if (!streams_.empty()) tail_->Stop();
}

void LogStreams::Add(LogStream* stream) {
  streams_.push_back(stream);
  if (streams_.size() > 1) return;
  // The sink runs wherever somebody logs: it hands on, or counts what it loses.
  tail_->Start(
      [this, shared = shared_, mailbox = mailbox_](const log::Lines& lines) {
        const size_t size = lines->size();
        if (shared->pending.fetch_add(size) + size > kMaxPending) {
          shared->pending.fetch_sub(size);
          shared->dropped.fetch_add(size);
          return;
        }
        mailbox->Post([this, shared, lines, size] {
          shared->pending.fetch_sub(size);
          Deliver(lines);
        });
      });
}

void LogStreams::Remove(LogStream* stream) {
  if (std::erase(streams_, stream) > 0 && streams_.empty()) tail_->Stop();
}

void LogStreams::Deliver(const log::Lines& lines) {
  const uint64_t dropped = shared_->dropped.exchange(0);
  for (LogStream* stream : streams_) stream->Offer(*lines, dropped);
}

// --- LogStream.

void LogStream::Begin() {
  if (over()) return;
  all_->Add(this);
  const size_t recent = std::min<size_t>(request_.recent(), log::Tail::kRecent);
  if (recent > 0 && request_.source() != v1::TailLogRequest::ACCESS) {
    Offer(all_->tail()->Recent(recent), 0);
  }
}

bool LogStream::Wants(const log::Line& line) const {
  const bool access = line.kind == log::Line::Kind::kAccess;
  if (access && request_.source() == v1::TailLogRequest::SERVER) return false;
  if (!access && request_.source() == v1::TailLogRequest::ACCESS) return false;
  if (!access && line.level < FromMessage(request_.min_level())) return false;
  return request_.contains().empty() ||
         line.text.find(request_.contains()) != std::string::npos;
}

void LogStream::Offer(const std::vector<log::Line>& lines, uint64_t dropped) {
  dropped_ += dropped;
  for (const log::Line& line : lines) {
    if (!Wants(line)) continue;
    if (lines_.size() >= kMaxLines) {
      ++dropped_;
      continue;
    }
    v1::TailLogResponse::Line& to = lines_.emplace_back();
    const bool access = line.kind == log::Line::Kind::kAccess;
    *to.mutable_time() = TimeUtil::NanosecondsToTimestamp(line.time_ns);
    to.set_source(access ? v1::TailLogRequest::ACCESS
                         : v1::TailLogRequest::SERVER);
    to.set_level(ToMessage(line.level));
    to.set_worker(line.worker);
    // What is escaped already stays as it is.
    to.set_text(line.text);
  }
  Ready();
}

void LogStream::Ready() {
  while (!lines_.empty() && MayWrite()) {
    v1::TailLogResponse* response = NextMessage();
    response->set_dropped(std::exchange(dropped_, 0));
    for (size_t i = 0; i < kBatch && !lines_.empty(); ++i) {
      *response->add_lines() = std::move(lines_.front());
      lines_.pop_front();
    }
    Write();
  }
}

}  // namespace kevent::admin
