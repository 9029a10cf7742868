// SPDX-License-Identifier: Apache-2.0
#include "server/admin/service.h"

#include <google/protobuf/util/time_util.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "server/admin/stats_message.h"
#include "server/admin/stream.h"

namespace kevent::admin {
namespace {

using google::protobuf::util::TimeUtil;

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kMinInterval = 10'000'000;
constexpr int64_t kMaxInterval = 3600 * kSecond;

int64_t Now(clockid_t clock) {
  timespec ts;
  clock_gettime(clock, &ts);
  return ts.tv_sec * kSecond + ts.tv_nsec;
}

grpc::Status Invalid(const std::string& text) {
  return {grpc::StatusCode::INVALID_ARGUMENT, text};
}

grpc::Status GoingDown() {
  return {grpc::StatusCode::UNAVAILABLE, "the server is going down"};
}

// Nanoseconds of `given`, or `fallback` if there is none.
grpc::Status ParseInterval(const google::protobuf::Duration* given,
                           int64_t fallback, int64_t* interval_ns) {
  *interval_ns = fallback;
  if (!given) return grpc::Status::OK;
  // A client may send any two numbers.
  if (given->seconds() < 0 || given->seconds() > kMaxInterval / kSecond ||
      given->nanos() < 0 || given->nanos() >= kSecond) {
    return Invalid("interval: not between 10 ms and 1 h");
  }
  *interval_ns = given->seconds() * kSecond + given->nanos();
  if (*interval_ns < kMinInterval || *interval_ns > kMaxInterval) {
    return Invalid("interval: not between 10 ms and 1 h");
  }
  return grpc::Status::OK;
}

std::string Kernel() {
  utsname name;
  if (uname(&name) < 0) return "";
  return std::string(name.sysname) + " " + name.release + " " + name.machine;
}

}  // namespace

class Service::StatsStream final : public Stream<v1::Stats>,
                                   private loop::Timer {
 public:
  StatsStream(Service* service, int64_t interval_ns, uint32_t count)
      : Stream(service->mailbox_, &service->streams_),
        loop::Timer(OnTimer),
        service_(service),
        interval_ns_(interval_ns),
        left_(count) {}

  // In the admin loop.
  void Begin() {
    due_ns_ = service_->loop_->UpdateNow();
    Ask();
  }

 private:
  static void OnTimer(loop::Loop*, loop::Timer* timer) {
    auto* stream = static_cast<StatsStream*>(timer);
    stream->due_ = true;
    if (!stream->writing()) stream->Ask();
  }

  void Ask() {
    if (over()) return;
    due_ = false;
    // In step, unless it has fallen behind.
    due_ns_ = std::max(due_ns_ + interval_ns_, service_->loop_->now_ns());
    service_->loop_->SetTimer(this, due_ns_);
    service_->sampler_.Collect(
        [this, here = std::weak_ptr<int>(here_)](const Sample& sample) {
          if (here.expired() || over() || writing()) return;
          v1::Stats stats;
          service_->Fill(sample, &stats);
          Write(std::move(stats));
        });
  }

  void Ready() override {
    if (left_ > 0 && --left_ == 0) {
      End(grpc::Status::OK);
    } else if (due_) {
      Ask();
    }
  }

  void Ended() override { service_->loop_->CancelTimer(this); }

  Service* const service_;
  const int64_t interval_ns_;
  uint32_t left_;  // messages; 0: no end
  int64_t due_ns_ = 0;
  bool due_ = false;  // while the message before was still going out
  const std::shared_ptr<int> here_ = std::make_shared<int>(0);
  // Gone with this object, which may end before the figures are there.
};

Service::Service(loop::Loop* loop, std::shared_ptr<Mailbox> mailbox,
                 std::shared_ptr<const Target> target, size_t max_streams)
    : loop_(loop),
      mailbox_(std::move(mailbox)),
      target_(std::move(target)),
      max_streams_(max_streams),
      start_ns_(Now(CLOCK_MONOTONIC)),
      start_time_ns_(Now(CLOCK_REALTIME)),
      sampler_(loop, mailbox_, target_) {}

Service::~Service() = default;

void Service::Fill(const Sample& sample, v1::Stats* stats) {
  FillStats(*target_, sample, start_ns_, Now(CLOCK_MONOTONIC), stats);
}

grpc::ServerUnaryReactor* Service::GetInfo(grpc::CallbackServerContext* context,
                                           const v1::GetInfoRequest* request,
                                           v1::GetInfoResponse* response) {
  response->set_name(target_->name);
  response->set_version(target_->version);
  response->set_kernel(Kernel());
  // Both are fixed when the queue is made.
  const Queue& queue = target_->workers.front().loop->queue();
  response->set_engine(std::string(EngineName(queue.engine())));
  response->set_engine_reason(queue.engine_reason());
  response->set_pid(getpid());
  response->set_workers(static_cast<uint32_t>(target_->workers.size()));
  *response->mutable_start_time() =
      TimeUtil::NanosecondsToTimestamp(start_time_ns_);
  *response->mutable_uptime() =
      TimeUtil::NanosecondsToDuration(Now(CLOCK_MONOTONIC) - start_ns_);
  for (const std::string& address : target_->addresses) {
    response->add_addresses(address);
  }
  response->set_config_digest(target_->config_digest);
  response->set_state(draining_.load() ? v1::GetInfoResponse::DRAINING
                                       : v1::GetInfoResponse::SERVING);
  auto* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* Service::GetStats(
    grpc::CallbackServerContext* context, const v1::GetStatsRequest* request,
    v1::Stats* response) {
  auto* reactor = context->DefaultReactor();
  const bool posted = mailbox_->Post([this, reactor, response] {
    sampler_.Collect([this, reactor, response](const Sample& sample) {
      Fill(sample, response);
      reactor->Finish(grpc::Status::OK);
    });
  });
  if (!posted) reactor->Finish(GoingDown());
  return reactor;
}

grpc::ServerWriteReactor<v1::Stats>* Service::WatchStats(
    grpc::CallbackServerContext* context,
    const v1::WatchStatsRequest* request) {
  int64_t interval_ns = 0;
  grpc::Status status =
      ParseInterval(request->has_interval() ? &request->interval() : nullptr,
                    kSecond, &interval_ns);
  if (status.ok() && streams_.fetch_add(1) >= max_streams_) {
    streams_.fetch_sub(1);
    status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                          "too many streams: at most " +
                              std::to_string(max_streams_) + " at a time");
  }
  if (!status.ok()) return new RefusedStream<v1::Stats>(status);
  auto* stream = new StatsStream(this, interval_ns, request->count());
  mailbox_->Post([stream] { stream->Begin(); });
  return stream;
}

}  // namespace kevent::admin
