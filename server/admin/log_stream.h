// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_LOG_STREAM_H_
#define SERVER_ADMIN_LOG_STREAM_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "proto/kevent/admin/v1/admin.pb.h"
#include "server/admin/mailbox.h"
#include "server/admin/stream.h"
#include "server/log/tail.h"

namespace kevent::admin {

v1::LogLevel ToMessage(log::Level level);
log::Level FromMessage(v1::LogLevel level);  // DEBUG for unspecified

class LogStream;

class LogStreams {
 public:
  static constexpr size_t kMaxPending = 65536;
  // Lines on their way to the admin loop.

  LogStreams(std::shared_ptr<Mailbox> mailbox, log::Tail* tail)
      : mailbox_(std::move(mailbox)), tail_(tail) {}
  ~LogStreams();

  void Add(LogStream* stream);
  void Remove(LogStream* stream);
  log::Tail* tail() const { return tail_; }

 private:
  struct Shared {
    std::atomic<size_t> pending{0};
    std::atomic<uint64_t> dropped{0};
  };

  void Deliver(const log::Lines& lines);

  const std::shared_ptr<Mailbox> mailbox_;
  log::Tail* const tail_;
  const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
  std::vector<LogStream*> streams_;
};
// Those who watch the log. The tail is on as long as there are any. The admin
// loop's thread alone.

class LogStream final : public Stream<v1::TailLogResponse> {
 public:
  static constexpr size_t kMaxLines = 4096;
  // Kept for a client that reads slowly.
  static constexpr size_t kBatch = 256;

  LogStream(std::shared_ptr<Mailbox> mailbox, std::atomic<size_t>* streams,
            LogStreams* all, const v1::TailLogRequest& request)
      : Stream(std::move(mailbox), streams), all_(all), request_(request) {}

  // In the admin loop.
  void Begin();
  void Offer(const std::vector<log::Line>& lines, uint64_t dropped);

 private:
  bool Wants(const log::Line& line) const;
  void Append(const log::Line& line);
  void Ready() override;
  void Ended() override { all_->Remove(this); }

  LogStreams* const all_;
  const v1::TailLogRequest request_;
  std::deque<v1::TailLogResponse::Line> lines_;
  uint64_t dropped_ = 0;
};
// One TailLog.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_LOG_STREAM_H_
