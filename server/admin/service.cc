// SPDX-License-Identifier: Apache-2.0
#include "server/admin/service.h"

#include <google/protobuf/util/time_util.h>
#include <grpc/grpc_security_constants.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "server/admin/arguments.h"
#include "server/admin/errors.h"
#include "server/admin/expect.h"
#include "server/admin/grpc_status.h"
#include "server/admin/stats_message.h"
#include "server/admin/stream.h"

namespace kevent::admin {
namespace {

using google::protobuf::util::TimeUtil;

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kMinInterval = 10'000'000;
constexpr int64_t kMaxInterval = 3600 * kSecond;
constexpr int64_t kMaxDrain = 24 * 3600 * kSecond;
constexpr size_t kMaxContains = 1000;

int64_t Now(clockid_t clock) {
  timespec ts;
  clock_gettime(clock, &ts);
  return ts.tv_sec * kSecond + ts.tv_nsec;
}

absl::Status NoConfig() {
  return NoSuchFeature("config", "this service has no configuration to show");
}

absl::Status NoLog() { return NoSuchFeature("log", "this service has no log"); }

// The store may know nothing of details.
FinishFn ExplainConfig(FinishFn finish) {
  return [finish = std::move(finish)](const absl::Status& status) mutable {
    switch (status.code()) {
      case absl::StatusCode::kInvalidArgument:
        return finish(Explained(status, v1::INVALID_CONFIG, "text"));
      case absl::StatusCode::kNotFound:
        return finish(Explained(status, v1::VERSION_NOT_FOUND, "version"));
      case absl::StatusCode::kAborted:
        return finish(Explained(status, v1::VERSION_MISMATCH, "version"));
      default:
        return finish(Explained(status, v1::CANNOT_APPLY, "text"));
    }
  };
}

std::string Kernel() {
  utsname name;
  if (uname(&name) < 0) return "";
  return std::string(name.sysname) + " " + name.release + " " + name.machine;
}

}  // namespace

Service::Service(const Context& context, size_t max_streams,
                 std::optional<std::vector<std::string>> operators,
                 std::function<void(bool)> set_serving)
    : context_(context),
      loop_(context.loop),
      mailbox_(context.mailbox),
      target_(context.target),
      max_streams_(max_streams),
      operators_(std::move(operators)),
      start_ns_(Now(CLOCK_MONOTONIC)),
      start_time_ns_(Now(CLOCK_REALTIME)),
      sampler_(loop_, mailbox_, target_),
      watchers_(loop_, &sampler_,
                [this](const Sample& sample, std::string* to) {
                  EncodeStats(*target_, sample, start_ns_, Now(CLOCK_MONOTONIC),
                              to);
                }),
      logs_(mailbox_, target_->tail),
      drainer_(context_, std::move(set_serving)) {}

Service::~Service() = default;

void Service::Collect(absl::AnyInvocable<void(const v1::Stats&)> done) {
  sampler_.Collect(
      [this, done = std::move(done)](const Sample& sample) mutable {
        v1::Stats stats;
        Fill(sample, &stats);
        done(stats);
      });
}

void Service::Fill(const Sample& sample, v1::Stats* stats) {
  FillStats(*target_, sample, start_ns_, Now(CLOCK_MONOTONIC), stats);
}

// For calls that are answered in the admin loop: `fn(finish)`.
template <typename Fn>
Service::Unary* Service::InLoop(Caller* context, Fn fn) {
  Unary* reactor = context->DefaultReactor();
  const bool posted = mailbox_->Post([reactor, fn = std::move(fn)]() mutable {
    fn([reactor](absl::Status status) { reactor->Finish(ToGrpc(status)); });
  });
  if (!posted) reactor->Finish(ToGrpc(GoingDown()));
  return reactor;
}

// Whether the client may change something.
absl::Status Service::CheckRole(const Caller* context) const {
  if (!operators_) return absl::OkStatus();
  std::string client;
  for (const grpc::string_ref& name :
       context->auth_context()->FindPropertyValues(
           GRPC_X509_CN_PROPERTY_NAME)) {
    const std::string_view own(name.data(), name.size());
    if (std::find(operators_->begin(), operators_->end(), own) !=
        operators_->end()) {
      return absl::OkStatus();
    }
    client = own;
  }
  return RoleRequired("operator", client);
}

Service::Unary* Service::Refuse(Caller* context, const absl::Status& status) {
  Unary* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

// For calls that change something: InLoop, for those who may.
template <typename Fn>
Service::Unary* Service::Change(Caller* context, Fn fn) {
  if (absl::Status role = CheckRole(context); !role.ok()) {
    return Refuse(context, role);
  }
  return InLoop(context, std::move(fn));
}

// Counts a stream, which lowers the count again when it is done.
absl::Status Service::TakeStream() {
  if (streams_.fetch_add(1) < max_streams_) return absl::OkStatus();
  streams_.fetch_sub(1);
  return TooManyStreams(max_streams_);
}

// Whatever changes something leaves a line.
void Service::Note(const std::string& text) {
  if (target_->log) target_->log->Write(log::Level::kInfo, "admin: " + text);
}

Service::Unary* Service::GetInfo(Caller* context,
                                 const v1::GetInfoRequest* request,
                                 v1::GetInfoResponse* response) {
  response->set_name(target_->name);
  response->set_version(target_->version);
  response->set_kernel(Kernel());
  // Both are fixed when the queue is made.
  const Queue& queue = target_->workers.front().loop->queue();
  response->set_engine(std::string(EngineName(queue.engine())));
  response->set_engine_reason(Ascii(queue.engine_reason()));
  response->set_pid(getpid());
  response->set_workers(static_cast<uint32_t>(target_->workers.size()));
  *response->mutable_start_time() =
      TimeUtil::NanosecondsToTimestamp(start_time_ns_);
  *response->mutable_uptime() =
      TimeUtil::NanosecondsToDuration(Now(CLOCK_MONOTONIC) - start_ns_);
  for (const std::string& address : target_->list_addresses
                                        ? target_->list_addresses()
                                        : target_->addresses) {
    response->add_addresses(Ascii(address));
  }
  if (target_->config) {
    response->set_config_digest(target_->config->Versions().front().digest);
  }
  response->set_state(draining_.load() ? v1::GetInfoResponse::DRAINING
                                       : v1::GetInfoResponse::SERVING);
  if (target_->log) response->set_log_level(ToMessage(target_->log->level()));
  Unary* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

Service::Unary* Service::GetStats(Caller* context,
                                  const v1::GetStatsRequest* request,
                                  v1::Stats* response) {
  return InLoop(context, [this, response](FinishFn finish) {
    sampler_.Collect([this, response, finish = std::move(finish)](
                         const Sample& sample) mutable {
      Fill(sample, response);
      finish(absl::OkStatus());
    });
  });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* Service::WatchStats(
    Caller* context, const grpc::ByteBuffer* request) {
  using Refused = RefusedStream<grpc::ByteBuffer>;
  grpc::ByteBuffer bytes = *request;
  v1::WatchStatsRequest parsed;
  const grpc::Status valid =
      grpc::SerializationTraits<v1::WatchStatsRequest>::Deserialize(&bytes,
                                                                    &parsed);
  if (!valid.ok()) {
    return new Refused(absl::InvalidArgumentError("no WatchStatsRequest"));
  }
  int64_t interval_ns = kSecond;
  if (parsed.has_interval()) {
    auto given = ParseDuration(parsed.interval(), "interval", kMinInterval,
                               kMaxInterval);
    if (!given.ok()) return new Refused(given.status());
    interval_ns = *given;
  }
  if (absl::Status status = TakeStream(); !status.ok()) {
    return new Refused(status);
  }
  auto* stream = new StatsStream(mailbox_, &streams_, &watchers_, interval_ns,
                                 parsed.count());
  mailbox_->Post([stream] { stream->Begin(); });
  return stream;
}

Service::Unary* Service::ListConnections(
    Caller* context, const v1::ListConnectionsRequest* request,
    v1::ListConnectionsResponse* response) {
  return InLoop(context, [this, request, response](FinishFn finish) {
    admin::ListConnections(context_, *request, response, std::move(finish));
  });
}

Service::Unary* Service::CloseConnection(
    Caller* context, const v1::CloseConnectionRequest* request,
    v1::CloseConnectionResponse* response) {
  return Change(context, [this, request](FinishFn finish) {
    Note("close connection " + Ascii(request->id()).substr(0, 40));
    admin::CloseConnection(context_, *request, std::move(finish));
  });
}

Service::Unary* Service::Drain(Caller* context, const v1::DrainRequest* request,
                               v1::DrainResponse* response) {
  if (absl::Status role = CheckRole(context); !role.ok()) {
    return Refuse(context, role);
  }
  int64_t timeout_ns = target_->drain_timeout_ns;
  if (request->has_timeout()) {
    auto given = ParseDuration(request->timeout(), "timeout", 0, kMaxDrain);
    if (!given.ok()) return Refuse(context, given.status());
    timeout_ns = *given;
  }
  auto* call =
      new Drainer::Call(&drainer_, timeout_ns, request->wait(), response);
  mailbox_->Post([this, call, timeout_ns] {
    Note("drain, " + std::to_string(timeout_ns / 1'000'000) + " ms");
    drainer_.Start(call);
  });
  return call;
}

Service::Unary* Service::Undrain(Caller* context,
                                 const v1::UndrainRequest* request,
                                 v1::UndrainResponse* response) {
  return Change(context, [this](FinishFn finish) {
    Note("undrain");
    drainer_.Undrain(std::move(finish));
  });
}

Service::Unary* Service::SetLogLevel(Caller* context,
                                     const v1::SetLogLevelRequest* request,
                                     v1::SetLogLevelResponse* response) {
  return Change(context, [this, request, response](FinishFn finish) {
    if (!target_->log) {
      return finish(NoLog());
    }
    if (!v1::LogLevel_IsValid(request->level()) ||
        request->level() == v1::LOG_LEVEL_UNSPECIFIED) {
      return finish(InvalidField("level", "DEBUG, INFO, WARNING or ERROR"));
    }
    response->set_previous(ToMessage(target_->log->level()));
    target_->log->SetLevel(FromMessage(request->level()));
    Note("log level " + v1::LogLevel_Name(request->level()));
    finish(absl::OkStatus());
  });
}

grpc::ServerWriteReactor<v1::TailLogResponse>* Service::TailLog(
    Caller* context, const v1::TailLogRequest* request) {
  using Refused = RefusedStream<v1::TailLogResponse>;
  if (!target_->tail) return new Refused(NoLog());
  absl::Status status;
  if (!v1::TailLogRequest::Source_IsValid(request->source())) {
    status = InvalidField("source", "there is no such source");
  } else if (!v1::LogLevel_IsValid(request->min_level())) {
    status = InvalidField("min_level", "there is no such level");
  } else if (request->contains().size() > kMaxContains) {
    status = InvalidField("contains", "at most 1000 bytes");
  }
  if (status.ok()) status = TakeStream();
  if (!status.ok()) return new Refused(status);
  auto* stream = new LogStream(mailbox_, &streams_, &logs_, *request);
  mailbox_->Post([stream] { stream->Begin(); });
  return stream;
}

Service::Unary* Service::ListCache(Caller* context,
                                   const v1::ListCacheRequest* request,
                                   v1::ListCacheResponse* response) {
  return InLoop(context, [this, request, response](FinishFn finish) {
    admin::ListCache(context_, *request, response, std::move(finish));
  });
}

Service::Unary* Service::PurgeCache(Caller* context,
                                    const v1::PurgeCacheRequest* request,
                                    v1::PurgeCacheResponse* response) {
  return Change(context, [this, request, response](FinishFn finish) {
    Note("purge cache");
    admin::PurgeCache(context_, *request, response, std::move(finish));
  });
}

Service::Unary* Service::ListQueues(Caller* context,
                                    const v1::ListQueuesRequest* request,
                                    v1::ListQueuesResponse* response) {
  return InLoop(context, [this, response](FinishFn finish) {
    sampler_.Collect([this, response, finish = std::move(finish)](
                         const Sample& sample) mutable {
      v1::Stats stats;
      Fill(sample, &stats);
      for (size_t i = 0; i < sample.size(); ++i) {
        auto* queue = response->add_queues();
        const Queue& own = target_->workers[i].loop->queue();
        queue->set_worker(static_cast<uint32_t>(i));
        queue->set_engine(std::string(EngineName(own.engine())));
        queue->set_engine_reason(Ascii(own.engine_reason()));
        v1::WorkerStats* worker = stats.mutable_workers(static_cast<int>(i));
        if (worker->has_queue()) {
          queue->mutable_stats()->Swap(worker->mutable_queue());
          queue->mutable_loop()->Swap(worker->mutable_loop());
        }
        queue->set_stale(worker->stale());
      }
      finish(absl::OkStatus());
    });
  });
}

Service::Unary* Service::ListInterests(Caller* context,
                                       const v1::ListInterestsRequest* request,
                                       v1::ListInterestsResponse* response) {
  return InLoop(context, [this, request, response](FinishFn finish) {
    admin::ListInterests(context_, *request, response, std::move(finish));
  });
}

// --- The configuration.

Service::Unary* Service::GetConfig(Caller* context,
                                   const v1::GetConfigRequest* request,
                                   v1::GetConfigResponse* response) {
  return InLoop(context, [this, request, response](FinishFn finish) {
    if (!target_->config) return finish(NoConfig());
    bool found = false;
    for (const ConfigStore::Version& version : target_->config->Versions()) {
      v1::ConfigVersion* to = response->add_versions();
      to->set_version(version.number);
      *to->mutable_time() = TimeUtil::NanosecondsToTimestamp(version.time_ns);
      to->set_digest(version.digest);
      to->set_origin(version.origin);
      if (found ||
          (request->version() != 0 && request->version() != version.number)) {
        continue;
      }
      found = true;
      *response->mutable_config() = *to;
      response->mutable_config()->set_text(version.text);
    }
    const std::string version = std::to_string(request->version());
    finish(found ? absl::OkStatus()
                 : NotFound(v1::VERSION_NOT_FOUND, "version", version,
                            "version " + version + " is not kept"));
  });
}

Service::Unary* Service::ValidateConfig(
    Caller* context, const v1::ValidateConfigRequest* request,
    v1::ValidateConfigResponse* response) {
  return InLoop(context, [this, request, response](FinishFn finish) {
    if (!target_->config) return finish(NoConfig());
    auto done = Expect<ConfigStore::Check>(
        context_, ExplainConfig(std::move(finish)),
        [response](const ConfigStore::Check& check) {
          response->set_digest(check.digest);
          response->set_changes(check.changes);
          for (const std::string& field : check.needs_restart) {
            response->add_needs_restart(field);
          }
        });
    target_->config->Validate(request->text(), std::move(done));
  });
}

Service::Unary* Service::ApplyConfig(Caller* context,
                                     const v1::ApplyConfigRequest* request,
                                     v1::ApplyConfigResponse* response) {
  return Change(context, [this, request, response](FinishFn finish) {
    if (!target_->config) return finish(NoConfig());
    Note("apply configuration");
    auto done = Expect<uint64_t>(
        context_, ExplainConfig(std::move(finish)),
        [response](uint64_t version) { response->set_version(version); });
    target_->config->Apply(request->text(), request->if_version(),
                           std::move(done));
  });
}

Service::Unary* Service::RollbackConfig(
    Caller* context, const v1::RollbackConfigRequest* request,
    v1::RollbackConfigResponse* response) {
  return Change(context, [this, request, response](FinishFn finish) {
    if (!target_->config) return finish(NoConfig());
    Note("roll back configuration");
    auto done = Expect<uint64_t>(
        context_, ExplainConfig(std::move(finish)),
        [response](uint64_t version) { response->set_version(version); });
    target_->config->Rollback(request->version(), std::move(done));
  });
}

}  // namespace kevent::admin
