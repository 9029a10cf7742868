// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/queue.h"

#include <utility>

#include "kevent/queue/core.h"

namespace kevent {

using internal::Core;
using internal::Engine;

std::string_view EngineName(EngineKind kind) {
  switch (kind) {
    case EngineKind::kAuto:
      return "auto";
    case EngineKind::kModule:
      return "module";
    case EngineKind::kUring:
      return "uring";
    case EngineKind::kEpoll:
      return "epoll";
  }
  return "unknown";
}

namespace {

absl::StatusOr<std::unique_ptr<Engine>> NewEngine(EngineKind kind, Core* core) {
  switch (kind) {
    case EngineKind::kModule:
      return internal::NewModuleEngine(core);
    case EngineKind::kUring:
      return internal::NewUringEngine(core);
    case EngineKind::kEpoll:
      return internal::NewEpollEngine(core);
    default:
      return absl::InvalidArgumentError("there is no such engine");
  }
}

std::string Text(std::string_view s) { return std::string(s); }

// sendfile(2) has no MSG_NOSIGNAL.
void IgnoreBrokenPipes() {
  struct sigaction action;
  if (sigaction(SIGPIPE, nullptr, &action) == 0 &&
      !(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_DFL) {
    signal(SIGPIPE, SIG_IGN);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Queue>> Queue::Create(const Options& options) {
  constexpr EngineKind kAll[] = {EngineKind::kModule, EngineKind::kUring,
                                 EngineKind::kEpoll};
  std::string reason;
  IgnoreBrokenPipes();
  for (EngineKind kind : kAll) {
    if (options.engine != EngineKind::kAuto && options.engine != kind) continue;
    auto core = std::make_unique<Core>(options);
    auto engine = NewEngine(kind, core.get());
    if (engine.ok()) {
      reason += options.engine == EngineKind::kAuto
                    ? Text(EngineName(kind)) + ": the first that works"
                    : Text(EngineName(kind)) + ": asked for";
      core->Attach(std::move(*engine), kind, std::move(reason));
      return std::unique_ptr<Queue>(new Queue(std::move(core)));
    }
    reason += Text(EngineName(kind)) + ": " +
              std::string(engine.status().message()) + "; ";
  }
  if (options.engine == EngineKind::kAuto) {
    reason.resize(reason.size() - 2);
    return absl::UnavailableError("no event engine works here: " + reason);
  }
  return absl::UnavailableError("engine " + reason +
                                "auto takes one that works");
}

Queue::Queue(std::unique_ptr<Core> core) : core_(std::move(core)) {}
Queue::~Queue() = default;

EngineKind Queue::engine() const { return core_->kind(); }
bool Queue::sends_by_reference() {
  auto lock = core_->Lock();
  return core_->SendsByReference();
}
const std::string& Queue::engine_reason() const { return core_->reason(); }

int Queue::Submit(Operation* op) {
  auto lock = core_->Lock();
  return core_->Submit(op);
}

int Queue::Cancel(Operation* op) {
  auto lock = core_->Lock();
  return core_->Cancel(op);
}

int Queue::Add(const Interest& interest, Handle* handle) {
  auto lock = core_->Lock();
  return core_->Add(interest, handle);
}

int Queue::Modify(Handle handle, uint32_t events, uint32_t flags) {
  auto lock = core_->Lock();
  return core_->Modify(handle, events, flags);
}

int Queue::SetTimer(Handle handle, int64_t first_ns, int64_t interval_ns,
                    bool absolute) {
  auto lock = core_->Lock();
  return core_->SetTimer(handle, first_ns, interval_ns, absolute);
}

int Queue::Enable(Handle handle) {
  auto lock = core_->Lock();
  return core_->SetEnabled(handle, true);
}

int Queue::Disable(Handle handle) {
  auto lock = core_->Lock();
  return core_->SetEnabled(handle, false);
}

size_t Queue::ListInterests(uint32_t* index, std::span<InterestInfo> out) {
  auto lock = core_->Lock();
  return core_->ListInterests(index, out);
}

int Queue::Remove(Handle handle) {
  auto lock = core_->Lock();
  return core_->Remove(handle);
}

int Queue::Post(PostOp* op) { return core_->Post(op); }
void Queue::Wake() { core_->Wake(); }

int Queue::Enter(std::span<Entry> out, const Wait& wait) {
  return core_->Enter(out, wait);
}

size_t Queue::Take(std::span<Entry> out) { return core_->Take(out); }

int Queue::Close(int fd) {
  auto lock = core_->Lock();
  return core_->Close(fd);
}

absl::StatusOr<BufferPool*> Queue::AddBufferPool(uint32_t buffers,
                                                 uint32_t bytes) {
  auto lock = core_->Lock();
  return core_->AddBufferPool(buffers, bytes);
}

int Queue::pollable_fd() { return core_->PollableFd(); }
Queue::Stats Queue::stats() const { return core_->stats(); }

}  // namespace kevent
