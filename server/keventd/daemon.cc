// SPDX-License-Identifier: Apache-2.0
#include "server/keventd/daemon.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <utility>

#include "server/admin/errors.h"
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

// What a field of the configuration names is not to be had.
absl::Status CannotHave(
    const absl::Status& status, const char* field,
    admin::v1::ErrorReason reason = admin::v1::CANNOT_APPLY) {
  const std::string why(status.message());
  return admin::FailedPrecondition(reason, why, {{field, why}});
}

absl::StatusOr<std::shared_ptr<const Site>> OpenSite(
    const DaemonOptions& options) {
  auto root = files::Root::Create(options.root, options.symlinks);
  if (!root.ok()) return root.status();
  return std::make_shared<const Site>(
      Site{*std::move(root), files::MimeTypes::Load(options.mime_types)});
}

// Whether the same files are served in the same way, and kept as long.
bool SameFiles(const DaemonOptions& a, const DaemonOptions& b) {
  return a.root == b.root && a.symlinks == b.symlinks &&
         a.mime_types == b.mime_types && a.index == b.index &&
         a.listing == b.listing && a.http.server_name == b.http.server_name &&
         a.cache.max_entries == b.cache.max_entries &&
         a.cache.max_descriptors == b.cache.max_descriptors &&
         a.cache.max_body_bytes == b.cache.max_body_bytes &&
         a.cache.max_total_body_bytes == b.cache.max_total_body_bytes &&
         a.cache.revalidate_ns == b.cache.revalidate_ns;
}

}  // namespace

void Daemon::BlockSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signo : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signo);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

Daemon::Daemon(const DaemonOptions& options)
    : log_("keventd", STDERR_FILENO, &tail_), options_(options) {}

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Create(
    const DaemonOptions& options, Source source) {
  auto site = OpenSite(options);
  if (!site.ok()) return site.status();
  RaiseDescriptorLimit();
  std::unique_ptr<Daemon> d(new Daemon(options));
  d->config_path_ = std::move(source.path);

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
        Worker::Create(&d->runtime_->loop(i), static_cast<uint32_t>(i), *site,
                       options, &d->tail_);
    if (!worker.ok()) return worker.status();
    d->workers_.push_back(*std::move(worker));
  }
  for (const net::Address& address : options.listen) {
    d->bound_.push_back({address, address});
  }
  auto listeners = d->Bind(&d->bound_);
  if (!listeners.ok()) return listeners.status();
  for (size_t i = 0; i < d->workers_.size(); ++i) {
    for (net::Listener& listener : (*listeners)[i]) {
      d->workers_[i]->Listen(std::move(listener));
    }
  }
  Daemon* daemon = d.get();
  d->config_ = std::make_unique<DaemonConfig>(
      d->main_.get(), std::move(source.config), options,
      std::move(source.overlay),
      [daemon](const DaemonOptions& next, absl::AnyInvocable<void()> applied) {
        return daemon->Reconfigure(next, std::move(applied));
      });
  d->tail_.SetWanted([daemon](bool access) {
    for (auto& worker : daemon->workers_) {
      Worker* w = worker.get();
      w->loop()->Post([w, access] { w->SetTailing(access); });
    }
  });
  return d;
}

// Binds every address, in which port 0 becomes the one it got.
absl::StatusOr<Daemon::Listeners> Daemon::Bind(std::vector<Bound>* bound) {
  Listeners listeners(workers_.size());
  for (Bound& one : *bound) {
    net::Address& address = one.address;
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
    listen.defer_accept_s = options_.defer_accept_s;
    for (auto& own : listeners) {
      auto listener = net::Listener::Listen(address, listen);
      if (!listener.ok()) return WithMend(listener.status());
      own.push_back(*std::move(listener));
    }
  }
  return listeners;
}

std::vector<std::string> Daemon::Addresses() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> addresses;
  for (const Bound& one : bound_) addresses.push_back(one.address.ToString());
  return addresses;
}

std::string Daemon::ReadyLine() const {
  std::string line = "listening on ";
  const char* separator = "";
  for (const std::string& address : Addresses()) {
    line += separator;
    line += address.starts_with("unix:") ? "" : "http://";
    line += address;
    separator = ", ";
  }
  size_t n = workers_.size();
  line += " (engine ";
  line += EngineName(runtime_->loop(0).queue().engine());
  line += ", " + std::to_string(n) + (n == 1 ? " worker)" : " workers)");
  return line;
}

absl::Status Daemon::StartAdmin(const AdminFlags& flags) {
  admin::Target target;
  target.name = "keventd";
  target.version = kVersion;
  target.config = config_.get();
  target.list_addresses = [this] { return Addresses(); };
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
  std::string warning;
  auto admin = keventd::StartAdmin(flags, std::move(target), &warning);
  if (!admin.ok()) return admin.status();
  admin_ = *std::move(admin);
  if (!warning.empty()) log_.Write(log::Level::kWarning, warning);
  if (admin_ && !admin_->address().empty()) {
    log_.Write(log::Level::kInfo, "admin service at " + admin_->address());
  }
  if (admin_ && !admin_->http_address().empty()) {
    log_.Write(log::Level::kInfo, "metrics at " + admin_->http_address());
  }
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
  if (!config_path_.empty()) {
    config_->Reload(config_path_, [this](absl::StatusOr<uint64_t> version) {
      if (version.ok()) {
        log_.Write(log::Level::kInfo, "configuration " + config_path_ +
                                          " is in force as version " +
                                          std::to_string(*version));
      } else {
        log_.Write(log::Level::kError, std::string(version.status().message()) +
                                           "; the old one stays in force");
      }
    });
  }
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

absl::Status Daemon::Reconfigure(const DaemonOptions& next,
                                 absl::AnyInvocable<void()> applied) {
  if (stopping_) return admin::GoingDown();
  std::vector<Worker::Change> changes(workers_.size());
  if (!SameFiles(options_, next)) {
    auto site = OpenSite(next);
    if (!site.ok()) return CannotHave(site.status(), "root");
    for (Worker::Change& change : changes) change.site = *site;
  }
  if (options_.access_log != next.access_log) {
    for (Worker::Change& change : changes) {
      change.new_log = true;
      if (next.access_log.empty()) continue;
      auto log = log::AccessLog::Open(next.access_log);
      if (!log.ok()) return CannotHave(log.status(), "access_log");
      change.log = *std::move(log);
    }
  }
  // Addresses that stay keep their sockets, and what waits in their backlogs.
  std::vector<Bound> kept;
  std::vector<Bound> added;
  std::vector<Bound> left = bound_;
  for (const net::Address& address : next.listen) {
    auto found = std::find_if(left.begin(), left.end(), [&](const Bound& one) {
      return one.configured == address;
    });
    if (found == left.end()) {
      added.push_back({address, address});
    } else {
      kept.push_back(*found);
      left.erase(found);
    }
  }
  if (!drained_) {
    auto listeners = Bind(&added);
    if (!listeners.ok()) return CannotHave(listeners.status(), "listen");
    for (size_t i = 0; i < changes.size(); ++i) {
      changes[i].listen = std::move((*listeners)[i]);
      for (const Bound& one : left) changes[i].stop.push_back(one.address);
    }
  }

  // From here on nothing fails.
  options_ = next;
  {
    std::lock_guard lock(mutex_);
    bound_ = std::move(kept);
    bound_.insert(bound_.end(), added.begin(), added.end());
  }
  auto left_workers = std::make_shared<size_t>(workers_.size());
  auto shared =
      std::make_shared<absl::AnyInvocable<void()>>(std::move(applied));
  for (size_t i = 0; i < workers_.size(); ++i) {
    Worker* w = workers_[i].get();
    changes[i].options = next;
    w->loop()->Post([this, w, left_workers, shared,
                     change = std::move(changes[i])]() mutable {
      w->Apply(std::move(change));
      main_->Post([left_workers, shared] {
        if (--*left_workers == 0) (*shared)();
      });
    });
  }
  return absl::OkStatus();
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

// Any thread. By the main loop, one after the other with what else changes.
void Daemon::Drain(int64_t timeout_ns, admin::Target::DoneFn done) {
  main_->Post([this, timeout_ns, done = std::move(done)]() mutable {
    drained_ = true;
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
  });
}

// Any thread.
void Daemon::Undrain(admin::Target::StatusFn done) {
  main_->Post([this, done = std::move(done)]() mutable {
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
  });
}

void Daemon::Rebind(admin::Target::StatusFn done) {
  if (stopping_) {
    return done(admin::GoingDown());
  }
  std::vector<Bound> bound = bound_;
  auto listeners = Bind(&bound);
  if (!listeners.ok()) {
    return done(
        CannotHave(listeners.status(), "listen", admin::v1::CANNOT_SERVE));
  }
  drained_ = false;
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
