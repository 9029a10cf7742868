// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_STREAM_H_
#define SERVER_ADMIN_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "server/admin/grpc_status.h"
#include "server/admin/mailbox.h"

namespace kevent::admin {

template <typename Message>
class Stream : public grpc::ServerWriteReactor<Message> {
 public:
  Stream(std::shared_ptr<Mailbox> mailbox, std::atomic<size_t>* streams)
      : mailbox_(std::move(mailbox)), streams_(streams) {}

 protected:
  virtual void Ready() = 0;
  // MayWrite said no, and would say yes now.
  virtual void Ended() {}
  // The stream is over; nothing is written any more.

  bool over() const { return over_; }

  bool MayWrite() { return !over_ && !Await(); }
  // The message before has gone out. If not, Ready is called when it has.

  Message* NextMessage() {
    message_.Clear();
    return &message_;
  }
  void Write() {
    writing_.store(Writing::kYes, std::memory_order_relaxed);
    this->StartWrite(&message_);
  }
  // When MayWrite has said yes: what is to be filled, in the memory of the one
  // before, and then goes out.

  void End(const absl::Status& status) {
    if (over_) return;
    over_ = true;
    Ended();
    status_ = ToGrpc(status);
    if (!Await()) this->Finish(status_);
  }
  // Behind the message that is going out.

 private:
  enum class Writing : uint8_t {
    kNo,
    kYes,
    kAwaited,  // yes, and the admin loop wants to be told of the end
  };

  // False if nothing is going out.
  bool Await() {
    Writing writing = Writing::kYes;
    return writing_.compare_exchange_strong(writing, Writing::kAwaited) ||
           writing != Writing::kNo;
  }

  // Mostly nobody waits for it: then the admin loop is not woken for nothing.
  void OnWriteDone(bool ok) final {
    Writing writing = Writing::kYes;
    if (ok && writing_.compare_exchange_strong(writing, Writing::kNo)) return;
    mailbox_->Post([this, ok] {
      writing_.store(Writing::kNo);
      if (over_) {
        this->Finish(status_);
      } else if (!ok) {
        End(absl::CancelledError("the client is gone"));
      } else {
        Ready();
      }
    });
  }
  void OnCancel() final {
    mailbox_->Post(
        [this] { End(absl::CancelledError("the call was cancelled")); });
  }
  void OnDone() final {
    streams_->fetch_sub(1);
    // What was posted before has run by then.
    if (!mailbox_->Post([this] { delete this; })) delete this;
  }

  const std::shared_ptr<Mailbox> mailbox_;
  std::atomic<size_t>* const streams_;
  std::atomic<Writing> writing_{Writing::kNo};
  // The admin loop's.
  Message message_;  // gRPC's while it is writing
  grpc::Status status_;
  bool over_ = false;
};
// A call that is answered by a stream of messages, driven by the admin loop:
// everything but gRPC's own callbacks runs there. It deletes itself. `streams`
// was raised for it and is lowered at its end.

template <typename Message>
class RefusedStream final : public grpc::ServerWriteReactor<Message> {
 public:
  explicit RefusedStream(const absl::Status& status) {
    this->Finish(ToGrpc(status));
  }
  void OnDone() override { delete this; }
};
// Ends at once.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_STREAM_H_
