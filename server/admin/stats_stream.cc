// SPDX-License-Identifier: Apache-2.0
#include "server/admin/stats_stream.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace kevent::admin {

// --- StatsStreams.

void StatsStreams::Add(StatsStream* stream) {
  streams_.push_back(stream);
  stream->due_ns_ = NextDue(loop_->UpdateNow(), stream->interval_ns_);
  SetTimer();
  Want(stream);
}

void StatsStreams::Remove(StatsStream* stream) {
  // The timer may come in vain.
  if (std::erase(streams_, stream) > 0 && streams_.empty()) SetTimer();
}

void StatsStreams::Want(StatsStream* stream) {
  stream->state_ = StatsStream::State::kWaits;
  Ask();
}

void StatsStreams::SetTimer() {
  loop_->CancelTimer(&tick_);
  if (streams_.empty()) return;
  int64_t due = INT64_MAX;
  for (const StatsStream* s : streams_) due = std::min(due, s->due_ns_);
  loop_->SetTimer(&tick_, due);
}

void StatsStreams::OnTimer(loop::Loop* loop, loop::Timer* timer) {
  StatsStreams* all = static_cast<Tick*>(timer)->streams;
  const int64_t now = loop->UpdateNow();
  for (StatsStream* stream : all->streams_) {
    if (stream->due_ns_ > now) continue;
    stream->due_ns_ = NextDue(now, stream->interval_ns_);
    stream->Due();
  }
  all->SetTimer();
  all->Ask();
}

// A message that is being made is not for those who have come since: its
// figures may be of a time before.
void StatsStreams::Ask() {
  if (asking_) return;
  for (StatsStream* stream : streams_) {
    if (stream->state_ != StatsStream::State::kWaits) continue;
    stream->state_ = StatsStream::State::kAsked;
    asking_ = true;
  }
  if (asking_) {
    sampler_->Collect([this](const Sample& sample) { Deliver(sample); });
  }
}

void StatsStreams::Deliver(const Sample& sample) {
  asking_ = false;
  std::vector<StatsStream*> to;
  for (StatsStream* stream : streams_) {
    if (stream->state_ == StatsStream::State::kAsked) to.push_back(stream);
  }
  if (!to.empty()) {
    encode_(sample, &bytes_);
    const grpc::Slice slice(bytes_.data(), bytes_.size());
    const grpc::ByteBuffer message(&slice, 1);
    // The last message of a stream takes it off the list.
    for (StatsStream* stream : to) stream->Send(message);
  }
  Ask();
}

// --- StatsStream.

void StatsStream::Due() {
  if (state_ != State::kIdle) return;
  state_ = MayWrite() ? State::kWaits : State::kMissed;
}

void StatsStream::Send(const grpc::ByteBuffer& message) {
  state_ = State::kIdle;
  *NextMessage() = message;
  Write();
  if (left_ > 0 && --left_ == 0) End(absl::OkStatus());
}

void StatsStream::Ready() {
  if (state_ == State::kMissed) all_->Want(this);
}

}  // namespace kevent::admin
