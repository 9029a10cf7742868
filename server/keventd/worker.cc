// SPDX-License-Identifier: Apache-2.0
#include "server/keventd/worker.h"

#include <utility>

namespace kevent::keventd {
namespace {

constexpr int64_t kFlushInterval = 1'000'000'000;

}  // namespace

Worker::Worker(loop::Loop* loop, const DaemonOptions& options)
    : loop_(loop),
      log_path_(options.access_log),
      flush_(OnFlush, this),
      drain_(OnDrainTimeout, this) {}

Worker::~Worker() {
  loop_->CancelTimer(&flush_);
  loop_->CancelTimer(&drain_);
}

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(
    loop::Loop* loop, const files::Root* root, const files::MimeTypes* mime,
    const DaemonOptions& options) {
  std::unique_ptr<Worker> worker(new Worker(loop, options));
  files::StaticHandler::Options files;
  files.cache = options.cache;
  files.index = options.index;
  files.listing = options.listing;
  files.server_name = options.http.server_name;
  worker->handler_ =
      std::make_unique<files::StaticHandler>(loop, root, mime, files);
  auto server =
      http::HttpServer::Create(loop, worker->handler_.get(), options.http);
  if (!server.ok()) return server.status();
  worker->server_ = *std::move(server);
  if (!options.access_log.empty()) {
    auto log = log::AccessLog::Open(options.access_log);
    if (!log.ok()) return log.status();
    worker->log_ = *std::move(log);
    Worker* w = worker.get();
    w->server_->SetLog([w](const http::LogRecord& record) { w->Log(record); });
    loop->SetTimer(&w->flush_, loop->UpdateNow() + kFlushInterval);
  }
  return worker;
}

void Worker::Listen(net::Listener listener) {
  server_->Listen(listener.Release());
  listeners_.push_back(std::move(listener));
}

void Worker::Log(const http::LogRecord& record) {
  log_->Write({record.fd, server_->date(), record.method, record.target,
               record.status, record.bytes, record.duration_ns});
}

void Worker::OnFlush(loop::Loop* loop, loop::Timer* timer) {
  static_cast<OwnTimer*>(timer)->worker->log_->Flush();
  loop->SetTimer(timer, loop->now_ns() + kFlushInterval);
}

void Worker::ReopenLog() {
  if (log_path_.empty()) return;
  auto log = log::AccessLog::Open(log_path_);
  // Better the old file than none.
  if (log.ok()) log_ = *std::move(log);
}

void Worker::Drain(int64_t timeout_ns, absl::AnyInvocable<void()> done) {
  loop_->SetTimer(&drain_, loop_->UpdateNow() + timeout_ns);
  server_->Drain(std::move(done));
}

void Worker::OnDrainTimeout(loop::Loop*, loop::Timer* timer) {
  static_cast<OwnTimer*>(timer)->worker->server_->CloseAll();
}

}  // namespace kevent::keventd
