// SPDX-License-Identifier: Apache-2.0
#include "server/admin/sampler.h"

#include <utility>

namespace kevent::admin {

Sampler::Sampler(loop::Loop* loop, std::shared_ptr<Mailbox> mailbox,
                 std::shared_ptr<const Target> target)
    : loop_(loop),
      mailbox_(std::move(mailbox)),
      target_(std::move(target)),
      last_(target_->workers.size()),
      asked_(target_->workers.size()),
      waiting_(target_->workers.size()),
      timer_(this) {}

Sampler::~Sampler() { loop_->CancelTimer(&timer_); }

void Sampler::Collect(DoneFn done) {
  next_.push_back(std::move(done));
  if (running_ || timer_.pending()) return;
  const int64_t begin = ended_ns_ + kPause;
  if (ended_ns_ != 0 && loop_->UpdateNow() < begin) {
    loop_->SetTimer(&timer_, begin);
  } else {
    Start();
  }
}

void Sampler::OnTimer(loop::Loop*, loop::Timer* timer) {
  Sampler* s = static_cast<Round*>(timer)->sampler;
  if (s->running_) {
    s->Finish();
  } else {
    s->Start();
  }
}

void Sampler::Start() {
  running_ = true;
  now_.swap(next_);
  left_ = target_->workers.size();
  for (size_t i = 0; i < target_->workers.size(); ++i) {
    waiting_[i] = true;
    // It has not come to the last closure yet: one is enough.
    if (asked_[i]) continue;
    asked_[i] = true;
    const Worker* worker = &target_->workers[i];
    worker->loop->Post([this, worker, i, mailbox = mailbox_, own = target_] {
      WorkerSample sample;
      sample.at_ns = worker->loop->UpdateNow();
      sample.queue = worker->loop->queue().stats();
      sample.loop = worker->loop->stats();
      if (worker->cache) {
        if (const files::FileCache* cache = worker->cache()) {
          sample.cache = cache->stats();
        }
      }
      mailbox->Post([this, i, sample] { Answered(i, sample); });
    });
  }
  loop_->SetTimer(&timer_, loop_->UpdateNow() + kPatience);
}

void Sampler::Answered(size_t worker, const WorkerSample& sample) {
  last_[worker] = sample;
  asked_[worker] = false;
  if (!running_ || !waiting_[worker]) return;
  waiting_[worker] = false;
  if (--left_ == 0) Finish();
}

void Sampler::Finish() {
  loop_->CancelTimer(&timer_);
  running_ = false;
  ended_ns_ = loop_->UpdateNow();
  for (size_t i = 0; i < last_.size(); ++i) last_[i].stale = waiting_[i];
  for (DoneFn& done : std::exchange(now_, {})) done(last_);
  if (!next_.empty() && !running_ && !timer_.pending()) {
    loop_->SetTimer(&timer_, ended_ns_ + kPause);
  }
}

}  // namespace kevent::admin
