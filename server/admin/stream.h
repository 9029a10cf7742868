// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_STREAM_H_
#define SERVER_ADMIN_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstddef>
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
  // The message before has gone out: Write may be called.
  virtual void Ended() {}
  // The stream is over; nothing is written any more.

  bool writing() const { return writing_; }
  bool over() const { return over_; }

  void Write(Message message) {
    if (over_ || writing_) return;
    writing_ = true;
    message_ = std::move(message);
    this->StartWrite(&message_);
  }

  void End(const absl::Status& status) {
    if (over_) return;
    over_ = true;
    Ended();
    status_ = ToGrpc(status);
    if (!writing_) this->Finish(status_);
  }
  // Behind the message that is going out.

 private:
  void OnWriteDone(bool ok) final {
    mailbox_->Post([this, ok] {
      writing_ = false;
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
  // The admin loop's.
  Message message_;
  grpc::Status status_;
  bool writing_ = false;
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
