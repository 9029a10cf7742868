// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_STATS_STREAM_H_
#define SERVER_ADMIN_STATS_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/admin/mailbox.h"
#include "server/admin/sampler.h"
#include "server/admin/stream.h"
#include "server/loop/loop.h"
#include "server/loop/timer.h"

namespace kevent::admin {

class StatsStream;

class StatsStreams {
 public:
  using EncodeFn = std::function<void(const Sample& sample, std::string* to)>;

  StatsStreams(loop::Loop* loop, Sampler* sampler, EncodeFn encode)
      : loop_(loop),
        sampler_(sampler),
        encode_(std::move(encode)),
        tick_(this) {}
  // `sampler` must outlive this. `encode` makes the bytes of a v1::Stats.
  ~StatsStreams() { loop_->CancelTimer(&tick_); }
  StatsStreams(const StatsStreams&) = delete;
  StatsStreams& operator=(const StatsStreams&) = delete;

  void Add(StatsStream* stream);
  // Its first message is made at once.
  void Remove(StatsStream* stream);
  void Want(StatsStream* stream);
  // It waits for a message.

  static int64_t NextDue(int64_t now_ns, int64_t interval_ns) {
    return ((now_ns + interval_ns / 2) / interval_ns + 1) * interval_ns;
  }
  // When a message is due after one at `now_ns`: at a multiple of the interval,
  // after at least a half of it and at most one and a half.

 private:
  struct Tick : loop::Timer {
    explicit Tick(StatsStreams* s) : loop::Timer(OnTimer), streams(s) {}
    StatsStreams* const streams;
  };

  static void OnTimer(loop::Loop* loop, loop::Timer* timer);
  void SetTimer();
  void Ask();
  void Deliver(const Sample& sample);

  loop::Loop* const loop_;
  Sampler* const sampler_;
  const EncodeFn encode_;
  std::vector<StatsStream*> streams_;
  bool asking_ = false;
  std::string bytes_;
  Tick tick_;
};
// Those who watch the counters. Whatever interval each has, its messages fall
// due at multiples of it, so that many share one: it is made once, and the loop
// wakes once. The admin loop's thread alone.

class StatsStream final : public Stream<grpc::ByteBuffer> {
 public:
  StatsStream(std::shared_ptr<Mailbox> mailbox, std::atomic<size_t>* streams,
              StatsStreams* all, int64_t interval_ns, uint32_t count)
      : Stream(std::move(mailbox), streams),
        all_(all),
        interval_ns_(interval_ns),
        left_(count) {}
  // `count` messages, or without end if it is 0.

  void Begin() {
    if (!over()) all_->Add(this);
  }
  // In the admin loop.

 private:
  friend class StatsStreams;
  enum class State : uint8_t {
    kIdle,
    kMissed,  // it was due while the message before was still going out
    kWaits,   // for a message that nobody has begun to make
    kAsked,   // for the one that is being made
  };

  void Due();
  void Send(const grpc::ByteBuffer& message);
  void Ready() override;
  void Ended() override { all_->Remove(this); }

  StatsStreams* const all_;
  const int64_t interval_ns_;
  uint32_t left_;
  int64_t due_ns_ = 0;
  State state_ = State::kIdle;
};
// One WatchStats.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_STATS_STREAM_H_
