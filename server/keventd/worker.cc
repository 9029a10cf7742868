// SPDX-License-Identifier: Apache-2.0
#include "server/keventd/worker.h"

#include <time.h>

#include <utility>

namespace kevent::keventd {
namespace {

constexpr int64_t kFlushInterval = 1'000'000'000;

}  // namespace

Worker::Worker(loop::Loop* loop, uint32_t number, const DaemonOptions& options,
               log::Tail* tail)
    : loop_(loop),
      log_path_(options.access_log),
      number_(number),
      tail_(tail),
      flush_(OnFlush, this),
      drain_(OnDrainTimeout, this) {}

Worker::~Worker() {
  loop_->CancelTimer(&flush_);
  loop_->CancelTimer(&drain_);
}

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(
    loop::Loop* loop, uint32_t number, std::shared_ptr<const Site> site,
    const DaemonOptions& options, log::Tail* tail) {
  std::unique_ptr<Worker> worker(new Worker(loop, number, options, tail));
  worker->site_ = std::move(site);
  worker->MakeHandler(options);
  auto server =
      http::HttpServer::Create(loop, worker->handler_.get(), options.http);
  if (!server.ok()) return server.status();
  worker->server_ = *std::move(server);
  if (!options.access_log.empty()) {
    auto log = log::AccessLog::Open(options.access_log);
    if (!log.ok()) return log.status();
    worker->log_ = *std::move(log);
    worker->SetLog();
    loop->SetTimer(&worker->flush_, loop->UpdateNow() + kFlushInterval);
  }
  return worker;
}

void Worker::MakeHandler(const DaemonOptions& options) {
  files::StaticHandler::Options files;
  files.cache = options.cache;
  files.index = options.index;
  files.listing = options.listing;
  files.server_name = options.http.server_name;
  handler_ = std::make_unique<files::StaticHandler>(loop_, &site_->root,
                                                    &site_->mime, files);
}

void Worker::Listen(net::Listener listener) {
  const int fd = listener.Release();
  server_->Listen(fd);
  listeners_.push_back({std::move(listener), fd});
}

void Worker::Apply(Change change) {
  for (const net::Address& address : change.stop) {
    std::erase_if(listeners_, [&](const Listening& own) {
      if (!(own.listener.address() == address)) return false;
      server_->StopListening(own.fd);
      return true;
    });
  }
  // Nothing of the old handler's is under way but responses that hold their
  // entry of its cache themselves.
  std::shared_ptr<const Site> old_site;
  std::unique_ptr<files::StaticHandler> old_handler;
  if (change.site) {
    old_site = std::exchange(site_, std::move(change.site));
    old_handler = std::move(handler_);
    MakeHandler(change.options);
  }
  server_->Configure(handler_.get(), change.options.http);
  if (change.new_log) {
    log_path_ = change.options.access_log;
    log_ = std::move(change.log);
    loop_->CancelTimer(&flush_);
    if (log_) loop_->SetTimer(&flush_, loop_->now_ns() + kFlushInterval);
    SetLog();
  }
  for (net::Listener& listener : change.listen) Listen(std::move(listener));
}

// Nobody wants to know: nothing is called for a response.
void Worker::SetLog() {
  if (log_ || tailing_) {
    server_->SetLog([this](const http::LogRecord& record) { Log(record); });
  } else {
    server_->SetLog(nullptr);
  }
}

void Worker::SetTailing(bool on) {
  tailing_ = on;
  SetLog();
}

void Worker::Log(const http::LogRecord& record) {
  const log::AccessLog::Record own = {
      record.fd,     server_->date(), record.method,     record.target,
      record.status, record.bytes,    record.duration_ns};
  if (log_) log_->Write(own);
  if (!tailing_) return;
  log::Line& line = tail_lines_.emplace_back();
  line.kind = log::Line::Kind::kAccess;
  line.worker = number_;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  line.time_ns = now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
  log::AccessLog::Append(own, &line.text);
  if (tail_lines_.size() > 1) return;
  // All lines of a turn at once.
  loop_->Defer(
      [](void* p) {
        auto* w = static_cast<Worker*>(p);
        w->tail_->Publish(std::exchange(w->tail_lines_, {}));
      },
      this);
}

void Worker::OnFlush(loop::Loop* loop, loop::Timer* timer) {
  static_cast<OwnTimer*>(timer)->worker->log_->Flush();
  loop->SetTimer(timer, loop->now_ns() + kFlushInterval);
}

absl::Status Worker::ReopenLog() {
  if (log_path_.empty()) return absl::OkStatus();
  auto log = log::AccessLog::Open(log_path_);
  if (!log.ok()) return log.status();
  log_ = *std::move(log);
  return absl::OkStatus();
}

void Worker::Drain(int64_t timeout_ns, absl::AnyInvocable<void()> done) {
  const int64_t deadline = loop_->UpdateNow() + timeout_ns;
  // A second one may only shorten it.
  if (!drain_.pending() || deadline < drain_.deadline_ns) {
    loop_->SetTimer(&drain_, deadline);
  }
  server_->Drain(std::move(done));
}

void Worker::AwaitClosed(absl::AnyInvocable<void()> done) {
  if (!server_->listening()) return done();
  loop_->Post([this, done = std::move(done)]() mutable {
    AwaitClosed(std::move(done));
  });
}

void Worker::Undrain(std::vector<net::Listener> listeners) {
  loop_->CancelTimer(&drain_);
  server_->Undrain();
  listeners_.clear();
  for (net::Listener& listener : listeners) Listen(std::move(listener));
}

void Worker::OnDrainTimeout(loop::Loop*, loop::Timer* timer) {
  static_cast<OwnTimer*>(timer)->worker->server_->CloseAll();
}

}  // namespace kevent::keventd
