// SPDX-License-Identifier: Apache-2.0
#include "server/http/server.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <time.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <utility>

#include "server/http/connection.h"
#include "server/http/response.h"

namespace kevent::http {

namespace {

struct Adopted : Connection {
  Adopted(HttpServer* server, int fd, uint64_t number)
      : Connection(server, fd), id(number) {}
  const uint64_t id;  // nanoseconds of the loop's clock, made unique
};
// A connection and what the server itself keeps of it.

static_assert(sizeof(Adopted) <= 152);

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kAcceptRetry = 100'000'000;
constexpr size_t kSlots = 64;        // connections that memory is allocated for
constexpr int kWaitsPerTurn = 256;   // ended
constexpr size_t kUnusedWork = 256;  // kept for the next connections
constexpr size_t kUnusedBytes = 32 << 10;  // of each of its buffers

}  // namespace

union HttpServer::Slot {
  Slot* next;  // unused
  alignas(Adopted) std::byte memory[sizeof(Adopted)];
};

struct HttpServer::Acceptor : AcceptOp, loop::Timer {
  explicit Acceptor(HttpServer* s) : loop::Timer(OnRetry), server(s) {}
  HttpServer* const server;
  bool pending = false;  // its last entry has not come
  bool closed = false;
};

// --- Exchange.

const Request& Exchange::request() const {
  return connection_->work()->request;
}
loop::Loop* Exchange::loop() const { return connection_->server()->loop(); }
int Exchange::fd() const { return connection_->fd(); }
bool Exchange::keep_alive() const { return connection_->keep_alive(); }
void Exchange::CloseAfter() { connection_->CloseAfter(); }
std::string_view Exchange::date() const {
  return connection_->server()->Date();
}

int64_t Exchange::unix_time() const {
  connection_->server()->Date();
  return connection_->server()->unix_time_;
}

std::span<char> Exchange::scratch() { return connection_->work()->scratch; }

std::string_view Exchange::connection_field() const {
  if (!connection_->keep_alive()) return "Connection: close\r\n";
  if (request().version_minor == 0) return "Connection: keep-alive\r\n";
  return "";
}

void Exchange::ReadBody(size_t limit, BodyFn done) {
  connection_->ReadBody(limit, std::move(done));
}

void Exchange::Respond(int status, std::span<const std::string_view> pieces,
                       Release release) {
  connection_->Respond(status, pieces, release, /*by_reference=*/false);
}

void Exchange::RespondByReference(int status,
                                  std::span<const std::string_view> pieces,
                                  Release release) {
  connection_->Respond(status, pieces, release, /*by_reference=*/true);
}

void Exchange::RespondFile(int status, std::string_view head, int file,
                           int64_t offset, int64_t length, Release release,
                           FileMemo* memo) {
  connection_->RespondFile(status, head, file, offset, length, release, memo);
}

void Exchange::RespondError(int status, std::string_view extra_fields) {
  const Request& r = request();
  ErrorResponse error;
  error.status = status;
  error.date = date();
  error.keep_alive = keep_alive();
  error.version_1_0 = r.version_minor == 0;
  error.head = !connection_->work()->failed && r.method == Method::kHead;
  error.extra_fields = extra_fields;
  std::string_view text = WriteErrorResponse(scratch(), error);
  if (text.empty()) {
    error.status = 500;
    error.extra_fields = {};
    text = WriteErrorResponse(scratch(), error);
  }
  Respond(error.status, {&text, 1});
}

void Exchange::Redirect(int status, std::string_view location) {
  std::string& kept = connection_->work()->reply;
  kept.resize(location.size() + 512);
  ResponseHead head(kept);
  head.Status(status);
  head.Append("Date", date());
  head.Append("Location", location);
  head.AppendRaw("Content-Length: 0\r\n");
  head.AppendRaw(connection_field());
  std::string_view text = head.Finish();
  if (text.empty()) {
    RespondError(500);
    return;
  }
  Respond(status, {&text, 1});
}

void Exchange::Reply(int status, std::string_view content_type,
                     std::string body) {
  ResponseHead head(scratch());
  head.Status(status);
  head.Append("Date", date());
  head.Append("Content-Type", content_type);
  head.Append("Content-Length", body.size());
  head.AppendRaw(connection_field());
  std::string_view pieces[2] = {head.Finish(), {}};
  if (pieces[0].empty()) {
    RespondError(500);
    return;
  }
  std::string& kept = connection_->work()->reply;
  kept = std::move(body);
  if (request().method != Method::kHead) pieces[1] = kept;
  Respond(status, pieces);
}

// --- HttpServer.

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Create(
    loop::Loop* loop, Handler* handler, const Options& options) {
  std::unique_ptr<HttpServer> server(new HttpServer(loop, handler, options));
  auto pool =
      loop->queue().AddBufferPool(options.buffers, options.buffer_bytes);
  if (!pool.ok()) return pool.status();
  server->pool_ = *pool;
  return server;
}

HttpServer::HttpServer(loop::Loop* loop, Handler* handler,
                       const Options& options)
    : loop_(loop),
      handler_(handler),
      options_(options),
      log_{this, nullptr},
      wait_timer_(this) {}

void HttpServer::Finished::operator()(LogRecord record) {
  server->counters_.latency.Record(record.duration_ns);
  if (log) log(record);
}

HttpServer::~HttpServer() {
  destroying_ = true;
  Walk(this).Next(SIZE_MAX,
                  [](const ConnectionInfo&) { return Verdict::kAbort; });
  for (auto& acceptor : acceptors_) {
    loop_->CancelTimer(acceptor.get());
    if (!acceptor->closed) loop_->Close(acceptor->fd);
    acceptor->closed = true;
  }
  auto busy = [this] {
    for (auto& acceptor : acceptors_) {
      if (acceptor->pending) return true;
    }
    return connection_count_ > 0;
  };
  // The last entries of what was just cancelled, and what they defer.
  do {
    loop_->RunOnce(kMillisecond);
  } while (busy());
  for (Walk* walk = walks_; walk; walk = walk->next_) walk->server_ = nullptr;
  loop_->CancelTimer(&wait_timer_);
  for (auto& work : unused_work_) loop_->CancelTimer(&work->timer);
}

void HttpServer::Listen(int fd) {
  acceptors_.push_back(std::make_unique<Acceptor>(this));
  Acceptor* acceptor = acceptors_.back().get();
  acceptor->AcceptOp::fd = fd;
  acceptor->flags = kOpMultishot;
  StartAccept(acceptor);
}

void HttpServer::StopListening(int fd) {
  for (auto& acceptor : acceptors_) {
    if (acceptor->AcceptOp::fd != fd || acceptor->closed) continue;
    acceptor->closed = true;
    loop_->CancelTimer(acceptor.get());
    loop_->Close(fd);
  }
}

void HttpServer::Configure(Handler* handler, const Options& options) {
  handler_ = handler;
  const Options before = options_;
  options_ = options;
  // Buffers of that size are in use.
  options_.limits.header_bytes = before.limits.header_bytes;
  options_.buffers = before.buffers;
  options_.buffer_bytes = before.buffer_bytes;
  EndWaits();  // some may wait for a shorter time now
  // There may be room for more now.
  if (draining_ || destroying_) return;
  for (auto& acceptor : acceptors_) StartAccept(acceptor.get());
}

void HttpServer::StartAccept(Acceptor* acceptor) {
  if (acceptor->pending || acceptor->closed ||
      connection_count_ >= options_.max_connections) {
    return;
  }
  loop_->CancelTimer(acceptor);
  if (loop_->Submit(acceptor, OnAccept) < 0) {
    loop_->SetTimer(acceptor, loop_->now_ns() + kAcceptRetry);
    return;
  }
  acceptor->pending = true;
}

void HttpServer::OnRetry(loop::Loop*, loop::Timer* timer) {
  auto* acceptor = static_cast<Acceptor*>(timer);
  acceptor->server->StartAccept(acceptor);
}

void HttpServer::OnAccept(loop::Loop* loop, Operation* op, const Entry& entry) {
  auto* acceptor = static_cast<Acceptor*>(static_cast<AcceptOp*>(op));
  HttpServer* server = acceptor->server;
  if (!(entry.flags & kEntryMore)) acceptor->pending = false;
  if (entry.result >= 0) server->Adopt(static_cast<int>(entry.result));
  if (acceptor->closed) {
    server->CheckDrained();
    return;
  }
  if (entry.flags & kEntryMore) {
    if (server->connection_count_ >= server->options_.max_connections) {
      loop->Cancel(op);
    }
    return;
  }
  if (entry.result < 0 && entry.result != -ECANCELED) {
    // No descriptor or no memory: trying again at once would only spin.
    server->counters_.accept_failures.Add(1);
    loop->SetTimer(acceptor, loop->now_ns() + kAcceptRetry);
    return;
  }
  server->StartAccept(acceptor);
}

void HttpServer::Adopt(int fd) {
  counters_.accepted.Add(1);
  if (draining_ || destroying_) {
    loop_->Close(fd);
    return;
  }
  if (!unused_slots_) {
    slots_.push_back(std::make_unique<Slot[]>(kSlots));
    for (size_t i = kSlots; i-- > 0;) {
      Slot* slot = &slots_.back()[i];
      slot->next = std::exchange(unused_slots_, slot);
    }
  }
  Slot* slot = std::exchange(unused_slots_, unused_slots_->next);
  last_id_ = std::max(last_id_ + 1, static_cast<uint64_t>(loop_->now_ns()));
  auto* c = new (slot->memory) Adopted(this, fd, last_id_);
  c->Link<Connection>::MoveToEndOf(all_.next);
  ++connection_count_;
  counters_.connections.Add(1);
  c->Start();
}

// Is the request probably there when a connection is accepted? Where it is not,
// a try is a call for nothing; where it is, waiting for it is.
bool HttpServer::BringsRequest(int fd) {
  constexpr uint32_t kSampled = 16;  // one of so many is looked at
  if (adopted_++ % kSampled == 0) {
    int bytes = 0;
    const bool early = ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0;
    early_samples_ = static_cast<uint8_t>(early_samples_ << 1 | early);
  }
  return std::popcount(early_samples_) >= 4;
}

void HttpServer::Removed(Connection* c) {
  Link<Connection>* const node = c;
  for (Walk* walk = walks_; walk; walk = walk->next_) {
    if (walk->at_ == node) walk->at_ = node->next;
  }
  node->Unlink();
  --connection_count_;
  counters_.connections.Sub(1);
  // Its own functions may still be on the stack.
  loop_->Defer(
      [](void* p) {
        auto* connection = static_cast<Adopted*>(p);
        HttpServer* server = connection->server();
        if (Work* work = connection->TakeWork()) server->PutWork(work);
        connection->~Adopted();
        auto* slot = new (p) Slot;
        slot->next = std::exchange(server->unused_slots_, slot);
      },
      static_cast<Adopted*>(c));
  if (!draining_ && !destroying_) {
    for (auto& acceptor : acceptors_) StartAccept(acceptor.get());
  }
  CheckDrained();
}

// Nothing of a request has come yet. A timer for all of them that wait for the
// same: the first of a list is the first to be given up.
void HttpServer::Wait(Connection* c, Waiting what) {
  WaitNode* node = c;
  node->since_ns = loop_->now_ns();
  node->MoveToEndOf(&waiting_[what]);
  const int64_t until_ns = node->since_ns + WaitsAtMost(what);
  // It may stand earlier: when it fires it is set again.
  if (!wait_timer_.pending() || wait_timer_.deadline_ns > until_ns) {
    loop_->SetTimer(&wait_timer_, until_ns);
  }
}

int64_t HttpServer::WaitsAtMost(int what) const {
  return what == kForFirst ? options_.header_timeout_ns
                           : options_.idle_timeout_ns;
}

void HttpServer::OnWaited(loop::Loop*, loop::Timer* timer) {
  static_cast<WaitTimer*>(timer)->server->EndWaits();
}

// Gives up those that have waited long enough, some at a time, and sees to it
// that the next ones are.
void HttpServer::EndWaits() {
  int64_t next_ns = INT64_MAX;
  int left = kWaitsPerTurn;
  for (int what = 0; what < kWaitings; ++what) {
    while (waiting_[what].linked()) {
      auto* node = static_cast<WaitNode*>(waiting_[what].next);
      int64_t until_ns = node->since_ns + WaitsAtMost(what);
      if (until_ns > loop_->now_ns() || left == 0) {
        next_ns = std::min(next_ns, until_ns);
        break;
      }
      --left;
      static_cast<Connection*>(node)->TimedOut();
    }
  }
  if (next_ns != INT64_MAX) {
    // Later than now, or it would fire within this turn.
    loop_->SetTimer(&wait_timer_, std::max(next_ns, loop_->now_ns() + 1));
  }
}

Work* HttpServer::TakeWork() {
  if (unused_work_.empty()) return new Work();
  Work* work = unused_work_.back().release();
  unused_work_.pop_back();
  return work;
}

void HttpServer::PutWork(Work* work) {
  std::unique_ptr<Work> owned(work);
  if (unused_work_.size() >= kUnusedWork) {
    loop_->CancelTimer(&work->timer);
    return;
  }
  work->parser = ParserState();
  work->input = {};
  work->failed = false;
  work->reply.clear();
  for (std::vector<char>* bytes : {&work->head, &work->early, &work->taken}) {
    if (bytes->capacity() > kUnusedBytes) *bytes = {};
    bytes->clear();
  }
  unused_work_.push_back(std::move(owned));
}

std::string_view HttpServer::Date() {
  int64_t now = loop_->now_ns();
  if (now >= date_until_ns_) {
    timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    unix_time_ = ts.tv_sec;
    date_until_ns_ = now + kSecond - ts.tv_nsec;
  }
  return date_.Get(unix_time_);
}

void HttpServer::Drain(absl::AnyInvocable<void()> done) {
  drained_.push_back(std::move(done));
  draining_ = true;
  for (auto& acceptor : acceptors_) {
    if (acceptor->closed) continue;
    acceptor->closed = true;
    loop_->CancelTimer(acceptor.get());
    loop_->Close(acceptor->AcceptOp::fd);
  }
  EndSome(std::make_unique<Walk>(this), Verdict::kDrain);
  CheckDrained();
}

// Closing thousands of connections takes a while in which others wait.
void HttpServer::EndSome(std::unique_ptr<Walk> walk, Verdict verdict) {
  HttpServer* server = walk->server_;
  if (!server || (verdict == Verdict::kDrain && !server->draining_)) return;
  const bool more = walk->Next(
      kDrainStep, [verdict](const ConnectionInfo&) { return verdict; });
  if (!more) return;
  server->loop_->Post([walk = std::move(walk), verdict]() mutable {
    EndSome(std::move(walk), verdict);
  });
}

void HttpServer::CloseAll() {
  EndSome(std::make_unique<Walk>(this), Verdict::kAbort);
}

void HttpServer::Undrain() {
  draining_ = false;
  drained_.clear();
  std::erase_if(acceptors_, [](const auto& acceptor) {
    return acceptor->closed && !acceptor->pending;
  });
}

bool HttpServer::listening() const {
  for (const auto& acceptor : acceptors_) {
    if (acceptor->pending || !acceptor->closed) return true;
  }
  return false;
}

void HttpServer::CheckDrained() {
  if (!draining_ || drained_.empty() || connection_count_ > 0) return;
  for (auto& acceptor : acceptors_) {
    if (acceptor->pending) return;
  }
  for (auto& done : std::exchange(drained_, {})) done();
}

// --- Walks.

HttpServer::Walk::Walk(HttpServer* server, uint64_t below)
    : server_(server),
      at_(server->all_.next),
      below_(below),
      next_(server->walks_) {
  server->walks_ = this;
}

HttpServer::Walk::~Walk() {
  if (!server_) return;
  Walk** link = &server_->walks_;
  while (*link != this) link = &(*link)->next_;
  *link = next_;
}

bool HttpServer::Walk::Next(size_t count, Fn fn) {
  for (; server_ && at_ != &server_->all_ && count > 0; --count) {
    auto* c = static_cast<Adopted*>(std::exchange(at_, at_->next));
    const uint64_t id = c->id;
    if (id >= below_ || c->closed()) continue;
    ConnectionInfo info;
    info.id = id;
    info.fd = c->fd();
    info.age_ns = server_->loop_->now_ns() - static_cast<int64_t>(id);
    if (const Work* work = c->work()) {
      info.state = ConnectionState::kRequest;
      if (work->send.in_flight() || work->sendfile.in_flight()) {
        info.state = ConnectionState::kResponse;
        info.method = work->request.raw_method;
        info.target = work->request.target;
        info.status = work->status;
      }
    }
    switch (fn(info)) {
      case Verdict::kKeep:
        break;
      case Verdict::kDrain:
        c->Drain();
        break;
      case Verdict::kAbort:
        c->Abort();
    }
  }
  return server_ && at_ != &server_->all_;
}

}  // namespace kevent::http
