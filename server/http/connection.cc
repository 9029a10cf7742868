// SPDX-License-Identifier: Apache-2.0
#include "server/http/connection.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "server/http/response.h"

namespace kevent::http {
namespace {

constexpr size_t kMaxSkip = 1 << 20;
// Bytes of an unwanted body that are read for the sake of the connection.

constexpr size_t kMaxEarly = 16 << 10;
// Bytes that are received while a response is under way, about.

constexpr int64_t kMaxTogether = 16 << 10;
// Bytes of a response that leaves together with that of the next request.

constexpr int64_t kMaxWithEnd = 256 << 10;
// Bytes of a response whose last part waits for the end of the stream. What is
// larger saves more by how the queue fills its segments (SendOp::more).

constexpr int64_t kMillisecond = 1'000'000;

constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

}  // namespace

WorkTimer::WorkTimer(Work* w) : loop::Timer(Connection::OnTimer), work(w) {}

Connection::Connection(HttpServer* server, int fd) : server_(server) {
  RecvOp::fd = fd;
}

void Connection::Start() {
  server_->Wait(this, HttpServer::kForFirst);
  // Of the first request alone: many connections have no other, and nothing has
  // to be cancelled when such a one is closed.
  StartRecv(server_->BringsRequest(fd()) ? 0 : kOpPollFirst);
}

// --- Input.

// Sees to it that input comes, if it does not already: one recv stays for many
// requests.
void Connection::Recv() {
  if (ended_) {
    Close();
  } else if (!RecvOp::in_flight()) {
    StartRecv(kOpMultishot);
  }
}

void Connection::StartRecv(uint16_t flags) {
  RecvOp::pool = server_->pool_;
  RecvOp::flags = flags;
  if (server_->loop_->Submit(static_cast<RecvOp*>(this), OnRecv) < 0) {
    Close();
    return;
  }
  ++pending_;
}

void Connection::OnRecv(loop::Loop*, Operation* op, const Entry& entry) {
  auto* c = static_cast<Connection*>(static_cast<RecvOp*>(op));
  if (!(entry.flags & kEntryMore)) --c->pending_;
  c->Received(entry);
}

void Connection::Received(const Entry& entry) {
  const bool busy = state_ == State::kHandling || state_ == State::kSending;
  if (entry.result <= 0) {
    // Cancelled is what ReceivedEarly does: Recv begins anew.
    ended_ = entry.result != -ECANCELED;
    if (state_ == State::kClosed) {
      Close();
    } else if (!busy) {
      Recv();
    }
    return;
  }
  InputBuffer buffer = {InputBuffer::Kind::kPool,
                        static_cast<uint16_t>(entry.data[1])};
  const std::string_view data = {reinterpret_cast<const char*>(entry.data[0]),
                                 static_cast<size_t>(entry.result)};
  if (state_ == State::kClosed || state_ == State::kLingering) {
    Drop(&buffer);
    if (state_ == State::kClosed) {
      Close();
    } else {
      Recv();
    }
    return;
  }
  if (busy) {
    ReceivedEarly(data);
    Drop(&buffer);
    return;
  }
  if (!work_) {
    WaitNode::Unlink();
    work_ = server_->TakeWork();
    work_->exchange.connection_ = this;
    SetDeadline(server_->options_.header_timeout_ns);
  }
  work_->emptied = data.size() < server_->pool_->buffer_size();
  if (state_ == State::kHead) {
    work_->head.insert(work_->head.end(), data.begin(), data.end());
    work_->input = {work_->head.data(), work_->head.size()};
    Drop(&buffer);
  } else {
    work_->current = buffer;
    work_->input = data;
  }
  Process();
}

// It came while a request is being answered. A little is kept, in memory of its
// own: buffers of the pool are for all.
void Connection::ReceivedEarly(std::string_view data) {
  Work* w = work_;
  w->early.insert(w->early.end(), data.begin(), data.end());
  if (w->early.size() >= kMaxEarly && RecvOp::in_flight()) {
    server_->loop_->Cancel(static_cast<RecvOp*>(this));
  }
}

// The input is used up; was there more of it? False if not.
bool Connection::TakeEarly() {
  Work* w = work_;
  if (w->early.empty()) return false;
  Drop(&w->current);
  w->taken.swap(w->early);
  w->early.clear();
  w->current = {InputBuffer::Kind::kTaken, 0};
  w->input = {w->taken.data(), w->taken.size()};
  return true;
}

void Connection::Drop(InputBuffer* buffer) {
  if (buffer->kind == InputBuffer::Kind::kPool && !server_->loop_->closing()) {
    server_->pool_->Release(buffer->id);
  }
  *buffer = InputBuffer();
}

void Connection::Process() {
  if (processing_) return;
  processing_ = true;
  for (bool more = true; more;) {
    switch (state_) {
      case State::kIdle:
        if (work_->input.empty() && !TakeEarly()) {
          EndRequest();
          more = false;
          break;
        }
        [[fallthrough]];
      case State::kHead:
        more = ParseHead();
        break;
      case State::kBody:
      case State::kSkipping:
        more = DecodeBody();
        break;
      default:
        more = false;
    }
  }
  processing_ = false;
  if (held_back_ && state_ != State::kSending) PushOut();
}

// Nothing of the next request is here: back to the smallest form.
void Connection::EndRequest() {
  Drop(&work_->current);
  server_->PutWork(TakeWork());
  if (server_->draining_) {
    Close();
    return;
  }
  server_->Wait(this, HttpServer::kForNext);
  Recv();
}

Work* Connection::TakeWork() {
  if (work_) work_->exchange.connection_ = nullptr;
  return std::exchange(work_, nullptr);
}

bool Connection::ParseHead() {
  Work* w = work_;
  ParseResult r =
      Parse(w->input, server_->options_.limits, &w->request, &w->parser);
  if (r.kind == ParseResult::Kind::kDone) {
    w->input.remove_prefix(r.consumed);
    StartHandling();
    return true;
  }
  if (r.kind == ParseResult::Kind::kError) {
    FailRequest(r.status);
    return true;
  }
  const size_t capacity = server_->options_.limits.header_bytes + 2;
  if (w->input.size() >= capacity) {  // Parse promises that it needs no more
    FailRequest(431);
    return true;
  }
  if (w->current.kind == InputBuffer::Kind::kHead) {
    // What is left of it goes to its end.
    w->head.erase(w->head.begin(), w->head.end() - ptrdiff_t(w->input.size()));
  } else {
    w->head.assign(w->input.begin(), w->input.end());
    Drop(&w->current);
    w->current = {InputBuffer::Kind::kHead, 0};
  }
  if (state_ == State::kIdle) {
    // From here on, however slowly the rest comes.
    SetDeadline(server_->options_.header_timeout_ns);
    state_ = State::kHead;
  }
  w->head.insert(w->head.end(), w->early.begin(), w->early.end());
  w->input = {w->head.data(), w->head.size()};
  if (!w->early.empty()) {
    w->early.clear();
    return true;
  }
  Recv();
  return false;
}

void Connection::StartHandling() {
  Work* w = work_;
  state_ = State::kHandling;
  w->started_ns = server_->loop_->now_ns();
  w->body = BodyDecoder(w->request);
  keep_alive_ = w->request.keep_alive && !server_->draining_;
  owes_ = true;
  server_->handler_->Handle(&w->exchange);
}

bool Connection::DecodeBody() {
  Work* w = work_;
  while (!w->input.empty()) {
    BodyDecoder::Result r = w->body.Decode(w->input);
    w->input.remove_prefix(r.consumed);
    int status = r.status;
    if (status == 0 && r.data.size() > w->body_limit) status = 413;
    if (status != 0) {
      if (state_ == State::kSkipping) {
        keep_alive_ = false;
        w->failed = true;
        Linger();
        return false;
      }
      FailBody(status);
      return true;
    }
    w->body_limit -= r.data.size();
    if (state_ == State::kBody) w->body_data.append(r.data);
    if (r.done) break;
  }
  if (w->body.done()) {
    if (state_ == State::kSkipping) {
      state_ = State::kIdle;
      return true;
    }
    state_ = State::kHandling;
    owes_ = true;
    std::exchange(w->body_fn, nullptr)(&w->exchange, 200,
                                       std::move(w->body_data));
    return true;
  }
  // The request's own bytes stay until it is answered.
  if (state_ == State::kBody && w->held.kind == InputBuffer::Kind::kNone) {
    w->held = std::exchange(w->current, InputBuffer());
    if (w->held.kind == InputBuffer::Kind::kTaken) w->head.swap(w->taken);
  } else {
    Drop(&w->current);
  }
  if (TakeEarly()) return true;
  SetDeadline(server_->options_.body_timeout_ns);
  Recv();
  return false;
}

void Connection::ReadBody(size_t limit, Exchange::BodyFn done) {
  Work* w = work_;
  w->body_fn = std::move(done);
  w->body_limit = limit;
  w->body_data.clear();
  if (state_ == State::kClosed) {
    w->body_fn = nullptr;
    owes_ = false;
    if (pending_ == 0) Free();
    return;
  }
  state_ = State::kBody;
  owes_ = false;
  if (w->request.content_length.value_or(0) > limit) {
    FailBody(413);
    return;
  }
  if (w->request.expect_continue && w->input.empty() && !w->body.done()) {
    // A few bytes on a connection on which nothing else is under way: there is
    // room for them, and if there is not the client does without (RFC 9110
    // section 10.1.1).
    ssize_t r = send(fd(), kContinue.data(), kContinue.size(),
                     MSG_NOSIGNAL | MSG_DONTWAIT);
    static_cast<void>(r);
  }
  Process();
}

// --- Output.

void Connection::Respond(int status, std::span<const std::string_view> pieces,
                         Release release, bool by_reference) {
  Work* w = work_;
  if (pieces.size() > Exchange::kPieces) abort();
  if (!TakeResponse(&release)) return;
  w->status = status;
  w->release = release;
  int64_t expected = 0;
  size_t n = 0;
  for (std::string_view piece : pieces) {
    if (piece.empty()) continue;
    w->pieces[n++] = {const_cast<char*>(piece.data()), piece.size()};
    expected += static_cast<int64_t>(piece.size());
  }
  w->send.pieces = {w->pieces, n};
  w->send.by_reference = by_reference;
  // Then the end of the stream, which follows at once, goes with its last part;
  // or so does the response to a request that is there already.
  held_back_ = keep_alive_ && expected <= kMaxTogether && NextIsHere();
  w->send.more = keep_alive_ ? held_back_ : expected <= kMaxWithEnd;
  Send(expected, &w->send);
}

// One that is whole, or looks like it: PushOut makes good for the others.
bool Connection::NextIsHere() const {
  return work_->body.done() && work_->input.ends_with("\r\n\r\n");
}

// What waits for the next response leaves, as that does not come at once: the
// handler takes its time, or the rest of the request does.
void Connection::PushOut() {
  held_back_ = false;
  const int off = 0;  // sends what MSG_MORE has left; it never was on
  setsockopt(fd(), IPPROTO_TCP, TCP_CORK, &off, sizeof off);
}

void Connection::RespondFile(int status, std::string_view head, int file,
                             int64_t offset, int64_t length, Release release,
                             FileMemo* memo) {
  Work* w = work_;
  if (!TakeResponse(&release)) return;
  w->status = status;
  w->release = release;
  w->send.more = false;
  w->sendfile.header = std::as_bytes(std::span(head));
  w->sendfile.file = file;
  w->sendfile.memo = memo;
  w->sendfile.offset = offset;
  w->sendfile.length = length;
  const int64_t expected = static_cast<int64_t>(head.size()) + length;
  // Later it might undo what the queue does to fill segments.
  if (held_back_ && expected > kMaxTogether) PushOut();
  const bool held_back = std::exchange(held_back_, false);
  Send(expected, &w->sendfile);
  // The file may have to come from the disk first.
  if (held_back && state_ == State::kSending) PushOut();
}

// The handler has answered; false if the connection is gone meanwhile.
bool Connection::TakeResponse(Release* release) {
  if (!owes_) abort();  // it did so twice
  owes_ = false;
  // What it says of the connection holds, even if the drain is given up.
  if (server_->draining_) keep_alive_ = false;
  if (state_ == State::kHandling) return true;
  (*release)();
  if (pending_ == 0) Free();
  return false;
}

void Connection::Send(int64_t expected, Operation* op) {
  Work* w = work_;
  state_ = State::kSending;
  w->expected = expected;
  w->progress = 0;
  op->fd = fd();
  op->flags = kOpSkipInline;
  SetDeadline(server_->options_.send_timeout_ns);
  int r = server_->loop_->Submit(op, OnSent);
  if (r == 0) {
    ++pending_;
  } else {
    // The loop's time is that of the beginning of the turn, of which the
    // handler may have taken most.
    Sent(r == Queue::kDone ? expected : r, loop::MonotonicNs());
  }
}

void Connection::OnSent(loop::Loop* loop, Operation* op, const Entry& entry) {
  Work* w = op->opcode == Opcode::kSend ? static_cast<WorkSend*>(op)->work
                                        : static_cast<WorkSendfile*>(op)->work;
  Connection* c = w->exchange.connection_;
  --c->pending_;
  c->Sent(entry.result, loop->now_ns());
}

void Connection::Sent(int64_t bytes, int64_t now_ns) {
  Work* w = work_;
  stats::HttpCounters& counters = server_->counters_;
  counters.requests.Add(1);
  counters.by_class[w->status >= 200 && w->status < 600 ? w->status / 100 : 0]
      .Add(1);
  if (bytes > 0) counters.bytes_sent.Add(static_cast<uint64_t>(bytes));
  if (server_->log_) {
    LogRecord record = {w->request.raw_method,
                        w->request.target,
                        fd(),
                        w->status,
                        static_cast<uint64_t>(std::max<int64_t>(bytes, 0)),
                        now_ns - w->started_ns};
    server_->log_(record);
  }
  w->release();
  if (bytes != w->expected || state_ == State::kClosed) {
    counters.aborted.Add(1);
    // Responses before it must not go the same way.
    if (state_ != State::kClosed) PushOut();
    Close();
    return;
  }
  EndResponse();
}

bool Connection::keep_alive() const {
  // Maybe it has not been told yet.
  if (!keep_alive_ || server_->draining_) return false;
  if (work_->body.done()) return true;
  // After an early response to a client that waits for 100 Continue nobody
  // knows whether a body will come (RFC 9110 section 10.1.1). One that would
  // not be skipped to its end must not be waited for either.
  const Request& r = work_->request;
  return !r.expect_continue && r.content_length.value_or(0) <= kMaxSkip;
}

void Connection::EndResponse() {
  Work* w = work_;
  if (!keep_alive()) {
    if (w->failed || !w->body.done() || !w->input.empty() ||
        !w->early.empty() || HasUnread()) {
      Linger();
    } else {
      // What of the response has waited for the end leaves with it now: to
      // close would drop it, should something have come in just now.
      if (w->send.more) shutdown(fd(), SHUT_WR);
      Close();
    }
    return;
  }
  Drop(&w->held);
  w->parser = ParserState();
  w->reply.clear();
  if (w->body.done()) {
    state_ = State::kIdle;
  } else {
    state_ = State::kSkipping;
    w->body_limit = kMaxSkip;
  }
  Process();
}

// Something that no recv is under way for has come. Not since this turn began:
// that much may come just after a look as well.
bool Connection::HasUnread() const {
  if (RecvOp::in_flight()) return false;
  if (work_->emptied && work_->started_ns == server_->loop_->now_ns()) {
    return false;
  }
  int bytes = 0;
  return ioctl(fd(), FIONREAD, &bytes) == 0 && bytes > 0;
}

// The handler, which waits for it, is told and answers.
void Connection::FailBody(int status) {
  Work* w = work_;
  keep_alive_ = false;
  w->failed = true;
  state_ = State::kHandling;
  owes_ = true;
  std::exchange(w->body_fn, nullptr)(&w->exchange, status, {});
}

void Connection::FailRequest(int status) {
  Work* w = work_;
  state_ = State::kHandling;
  w->started_ns = server_->loop_->now_ns();
  w->failed = true;
  w->request.expect_continue = false;
  keep_alive_ = false;
  owes_ = true;
  w->exchange.RespondError(status);
}

// --- The end.

void Connection::Linger() {
  // Closing with unread input would reset the connection, and the client might
  // lose the response (RFC 9112 section 9.6).
  state_ = State::kLingering;
  Drop(&work_->current);
  Drop(&work_->held);
  shutdown(fd(), SHUT_WR);
  SetDeadline(server_->options_.linger_ns);
  Recv();
}

void Connection::Drain() {
  if (state_ == State::kIdle && !work_) {
    Close();
  } else {
    keep_alive_ = false;
  }
}

void Connection::Abort() {
  if (!closed()) {
    linger reset = {1, 0};
    setsockopt(fd(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  }
  Close();
}

void Connection::Close() {
  if (state_ != State::kClosed) {
    state_ = State::kClosed;
    held_back_ = false;
    WaitNode::Unlink();
    server_->loop_->Close(RecvOp::fd);
    // What is under way makes its last entries now.
  }
  // A handler that still has the exchange will find it.
  if (pending_ == 0 && !owes_) Free();
}

void Connection::Free() {
  if (freed_) return;
  freed_ = true;
  if (work_) {
    Drop(&work_->current);
    Drop(&work_->held);
    work_->release();
    work_->body_fn = nullptr;
  }
  server_->Removed(this);
}

// --- Time.

void Connection::SetDeadline(int64_t after_ns) {
  Work* w = work_;
  w->deadline_ns = server_->loop_->now_ns() + after_ns;
  // The timer may stand earlier: when it fires it is set again.
  if (!w->timer.pending() || w->timer.deadline_ns > w->deadline_ns) {
    server_->loop_->SetTimer(&w->timer, w->deadline_ns);
  }
}

void Connection::OnTimer(loop::Loop* loop, loop::Timer* timer) {
  Work* w = static_cast<WorkTimer*>(timer)->work;
  Connection* c = w->exchange.connection_;
  if (!c || c->closed()) return;
  if (loop->now_ns() < w->deadline_ns) {
    loop->SetTimer(timer, w->deadline_ns);
  } else {
    c->TimedOut();
  }
}

// Grows as long as the client takes something: an engine may tell what it has
// sent only at the end of an operation. `quiet_ns` is for how long it has not.
int64_t Connection::Progress(int64_t* quiet_ns) const {
  *quiet_ns = 0;
  int64_t progress = work_->send.in_flight() ? work_->send.progress()
                                             : work_->sendfile.progress();
  tcp_info info = {};
  socklen_t size = sizeof info;
  if (getsockopt(fd(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0) {
    progress += static_cast<int64_t>(info.tcpi_bytes_acked);
    // A client that does not read acknowledges probes of its window, and one
    // that is gone is sent the same again and again: progress has both.
    *quiet_ns = kMillisecond *
                std::max(info.tcpi_last_data_sent, info.tcpi_last_ack_recv);
  }
  return progress;
}

void Connection::TimedOut() {
  switch (state_) {
    case State::kHandling:
      SetDeadline(server_->options_.send_timeout_ns);
      return;
    case State::kSending: {
      int64_t quiet_ns;
      int64_t progress = Progress(&quiet_ns);
      const int64_t left_ns = server_->options_.send_timeout_ns - quiet_ns;
      if (progress > work_->progress && left_ns > 0) {
        work_->progress = progress;
        SetDeadline(left_ns);
        return;
      }
      server_->counters_.timeouts.Add(1);
      // Unsent megabytes would outlive the connection otherwise.
      Abort();
      return;
    }
    case State::kHead:
      server_->counters_.timeouts.Add(1);
      // A recv is under way: the response goes out beside it, and the end of
      // the connection ends it.
      Close408();
      return;
    case State::kBody:
      server_->counters_.timeouts.Add(1);
      // Handler and log know of this request (RFC 9110 section 15.5.9).
      FailBody(408);
      return;
    default:
      server_->counters_.timeouts.Add(1);
      int unread = 0;
      if (ioctl(fd(), SIOCOUTQ, &unread) == 0 && unread > 0) {
        Abort();
      } else {
        Close();
      }
  }
}

// Tells a client that was too slow with its request, without waiting.
void Connection::Close408() {
  ErrorResponse error;
  error.status = 408;
  error.date = server_->Date();
  std::string_view text = WriteErrorResponse(work_->scratch, error);
  ssize_t r = send(fd(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  static_cast<void>(r);
  Close();
}

}  // namespace kevent::http
