// SPDX-License-Identifier: Apache-2.0
#include "server/keventd/daemon.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <utility>

#include "server/net/listener.h"

namespace kevent::keventd {
namespace {

// Each connection and each cached file is a descriptor.
void RaiseDescriptorLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

absl::Status WithMend(const absl::Status& status) {
  return absl::Status(status.code(), std::string(status.message()) +
                                         "; choose another with --listen");
}

}  // namespace

void Daemon::BlockSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signo : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signo);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

Daemon::Daemon(const DaemonOptions& options, files::Root root,
               files::MimeTypes mime)
    : log_("keventd", STDERR_FILENO, &tail_),
      options_(options),
      root_(std::move(root)),
      mime_(std::move(mime)) {}

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Create(
    const DaemonOptions& options) {
  auto root = files::Root::Create(options.root, options.symlinks);
  if (!root.ok()) return root.status();
  RaiseDescriptorLimit();
  std::unique_ptr<Daemon> d(new Daemon(
      options, *std::move(root), files::MimeTypes::Load(options.mime_types)));

  loop::Loop::Options main_options;
  main_options.queue.engine = EngineKind::kEpoll;
  main_options.queue.ring_entries = 64;
  auto main_loop = loop::Loop::Create(main_options);
  if (!main_loop.ok()) return main_loop.status();
  d->main_ = *std::move(main_loop);

  loop::Runtime::Options runtime;
  runtime.loops = options.workers;
  runtime.loop.queue.engine = options.engine;
  auto made = loop::Runtime::Create(runtime);
  if (!made.ok()) return made.status();
  d->runtime_ = *std::move(made);
  for (size_t i = 0; i < d->runtime_->size(); ++i) {
    auto worker =
        Worker::Create(&d->runtime_->loop(i), static_cast<uint32_t>(i),
                       &d->root_, &d->mime_, options, &d->tail_);
    if (!worker.ok()) return worker.status();
    d->workers_.push_back(*std::move(worker));
  }
  d->addresses_ = options.listen;
  auto listeners = d->Bind();
  if (!listeners.ok()) return listeners.status();
  for (size_t i = 0; i < d->workers_.size(); ++i) {
    for (net::Listener& listener : (*listeners)[i]) {
      d->workers_[i]->Listen(std::move(listener));
    }
  }
  Daemon* daemon = d.get();
  d->tail_.SetWanted([daemon](bool access) {
    for (auto& worker : daemon->workers_) {
      Worker* w = worker.get();
      w->loop()->Post([w, access] { w->SetTailing(access); });
    }
  });
  return d;
}

// Binds every one of addresses_, in which port 0 becomes the one it got.
absl::StatusOr<Daemon::Listeners> Daemon::Bind() {
  Listeners listeners(workers_.size());
  for (net::Address& address : addresses_) {
    net::Listener::Options listen;
    if (address.is_unix()) {
      auto listener = net::Listener::Listen(address, listen);
      if (!listener.ok()) return WithMend(listener.status());
      address = listener->address();
      listeners[0].push_back(*std::move(listener));
      continue;
    }
    // SO_REUSEPORT would let us share a port with another keventd unnoticed:
    // first take it for ourselves.
    {
      auto probe = net::Listener::Listen(address, listen);
      if (!probe.ok()) return WithMend(probe.status());
      address = probe->address();
    }
    listen.reuse_port = true;
    for (auto& own : listeners) {
      auto listener = net::Listener::Listen(address, listen);
      if (!listener.ok()) return WithMend(listener.status());
      own.push_back(*std::move(listener));
    }
  }
  return listeners;
}

std::string Daemon::ReadyLine() const {
  std::string line = "listening on ";
  const char* separator = "";
  for (const net::Address& address : addresses_) {
    line += separator;
    line += address.is_unix() ? "" : "http://";
    line += address.ToString();
    separator = ", ";
  }
  size_t n = workers_.size();
  line += " (engine ";
  line += EngineName(runtime_->loop(0).queue().engine());
  line += ", " + std::to_string(n) + (n == 1 ? " worker)" : " workers)");
  return line;
}

absl::Status Daemon::StartAdmin(const std::string& address) {
  admin::Target target;
  target.name = "keventd";
  target.version = kVersion;
  target.config_digest = options_.digest;
  for (const net::Address& bound : addresses_) {
    target.addresses.push_back(bound.ToString());
  }
  for (const auto& worker : workers_) {
    Worker* w = worker.get();
    target.workers.push_back(
        {w->loop(), &w->server(), [w] { return &w->cache(); }});
  }
  target.drain = [this](int64_t timeout_ns, admin::Target::DoneFn done) {
    Drain(timeout_ns, std::move(done));
  };
  target.undrain = [this](admin::Target::StatusFn done) {
    Undrain(std::move(done));
  };
  target.drain_timeout_ns = options_.drain_timeout_ns;
  target.log = &log_;
  target.tail = &tail_;
  auto admin = keventd::StartAdmin(address, std::move(target));
  if (!admin.ok()) return admin.status();
  admin_ = *std::move(admin);
  return absl::OkStatus();
}

std::string Daemon::EngineReason() const {
  return runtime_->loop(0).queue().engine_reason();
}

absl::Status Daemon::Run() {
  loop::Reactor reactor(main_.get());
  std::vector<loop::Watcher> watchers;
  for (int signo : {SIGTERM, SIGINT, SIGHUP}) {
    auto watcher = reactor.OnSignal(signo, [this, signo](const Entry&) {
      if (signo == SIGHUP) {
        OnHangup();
      } else {
        OnStop();
      }
    });
    if (!watcher.ok()) return watcher.status();
    watchers.push_back(*std::move(watcher));
  }
  workers_left_ = workers_.size();
  if (absl::Status s = runtime_->Start(); !s.ok()) return s;
  main_->Run();
  watchers.clear();
  admin_.reset();
  runtime_->Stop();
  runtime_->Join();
  return absl::OkStatus();
}

void Daemon::OnHangup() {
  for (auto& worker : workers_) {
    Worker* w = worker.get();
    w->loop()->Post([this, w] {
      if (absl::Status s = w->ReopenLog(); !s.ok()) {
        log_.Write(log::Level::kWarning,
                   std::string(s.message()) + "; the old one goes on");
      }
    });
  }
}

void Daemon::OnStop() {
  if (stopping_) _Exit(128 + SIGTERM);  // asked for twice
  stopping_ = true;
  log_.Write(log::Level::kDebug, "ends when the requests under way are done");
  if (admin_) admin_->SetServing(false);
  for (auto& worker : workers_) {
    Worker* w = worker.get();
    w->loop()->Post([this, w] {
      w->Drain(options_.drain_timeout_ns,
               [this] { main_->Post([this] { WorkerDone(); }); });
    });
  }
}

// Any thread.
void Daemon::Drain(int64_t timeout_ns, admin::Target::DoneFn done) {
  auto left = std::make_shared<std::atomic<size_t>>(workers_.size());
  auto shared = std::make_shared<admin::Target::DoneFn>(std::move(done));
  for (auto& worker : workers_) {
    Worker* w = worker.get();
    w->loop()->Post([w, timeout_ns, left, shared] {
      w->Drain(timeout_ns, [left, shared] {
        if (left->fetch_sub(1) == 1) (*shared)();
      });
    });
  }
}

// Any thread.
void Daemon::Undrain(admin::Target::StatusFn done) {
  auto left = std::make_shared<std::atomic<size_t>>(workers_.size());
  auto shared = std::make_shared<admin::Target::StatusFn>(std::move(done));
  for (auto& worker : workers_) {
    Worker* w = worker.get();
    w->loop()->Post([this, w, left, shared] {
      w->AwaitClosed([this, left, shared] {
        if (left->fetch_sub(1) > 1) return;
        main_->Post([this, shared] { Rebind(std::move(*shared)); });
      });
    });
  }
}

void Daemon::Rebind(admin::Target::StatusFn done) {
  if (stopping_) {
    return done(absl::UnavailableError("the server is going down"));
  }
  auto listeners = Bind();
  if (!listeners.ok()) {
    return done(absl::FailedPreconditionError(listeners.status().message()));
  }
  for (size_t i = 0; i < workers_.size(); ++i) {
    Worker* w = workers_[i].get();
    w->loop()->Post([w, own = std::move((*listeners)[i])]() mutable {
      w->Undrain(std::move(own));
    });
  }
  done(absl::OkStatus());
}

void Daemon::WorkerDone() {
  if (--workers_left_ == 0) main_->Stop();
}

}  // namespace kevent::keventd
