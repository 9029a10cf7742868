// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_CONNECTION_H_
#define SERVER_HTTP_CONNECTION_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/http/body.h"
#include "server/http/parser.h"
#include "server/http/server.h"
#include "server/loop/link.h"
#include "server/loop/loop.h"

namespace kevent::http {

class Connection;
struct Work;

struct WorkTimer : loop::Timer {
  explicit WorkTimer(Work* w);
  Work* const work;
};

struct WorkSend : SendOp {
  Work* work = nullptr;
};

struct WorkSendfile : SendfileOp {
  Work* work = nullptr;
};

struct InputBuffer {
  enum class Kind : uint8_t { kNone, kPool, kHead, kTaken };
  Kind kind = Kind::kNone;
  uint16_t id = 0;  // of the pool
};

struct Work {
  Work() : timer(this) {
    send.work = this;
    sendfile.work = this;
  }

  WorkTimer timer;  // goes on from one connection to the next: see SetDeadline
  int64_t deadline_ns = 0;

  Exchange exchange;
  Request request;
  ParserState parser;
  BodyDecoder body;
  WorkSend send;
  WorkSendfile sendfile;
  iovec pieces[Exchange::kPieces];
  Release release;
  std::string reply;  // what Reply sends

  std::string_view input;  // not yet consumed, in `current`
  InputBuffer current;
  InputBuffer held;        // where the request's views lie, if not in `current`
  std::vector<char> head;  // one that came in pieces
  std::vector<char> early;  // came before the connection had a use for it
  std::vector<char> taken;  // was `early`, is the input now

  Exchange::BodyFn body_fn;
  std::string body_data;
  size_t body_limit = 0;

  int64_t started_ns = 0;
  int64_t expected = 0;  // bytes of the response
  int64_t progress = 0;  // of them, when the time-out was last looked at
  int status = 0;
  bool failed = false;   // the request could not be understood
  bool emptied = false;  // the last recv left nothing in the socket

  char scratch[2048];
};
// What a connection needs while it has a request; from the server's pool.

struct WaitNode : Link<WaitNode> {
  int64_t since_ns = 0;
};

class Connection : private RecvOp, public Link<Connection>, public WaitNode {
 public:
  Connection(HttpServer* server, int fd);

  void Start();
  // Begins to receive.

  void Drain();
  // Idle: closes. Otherwise the response under way is the last.

  void Abort();
  // Closes at once.

  // For Exchange.
  HttpServer* server() const { return server_; }
  Work* work() const { return work_; }
  bool keep_alive() const;
  void CloseAfter() { keep_alive_ = false; }
  int fd() const { return closed() ? -1 : RecvOp::fd; }
  // The number may be another's as soon as this is closed.
  bool closed() const { return state_ == State::kClosed; }
  // It is only there for a handler that has not answered yet, or for
  // operations that have not ended.
  void ReadBody(size_t limit, Exchange::BodyFn done);
  void Respond(int status, std::span<const std::string_view> pieces,
               Release release, bool by_reference);
  void RespondFile(int status, std::string_view head, int file, int64_t offset,
                   int64_t length, Release release, FileMemo* memo);

  Work* TakeWork();
  // It is nobody's then; null if there is none.

  void TimedOut();
  // What it waits for has not come in time.

  static void OnTimer(loop::Loop* loop, loop::Timer* timer);
  // Of a Work.

 private:
  enum class State : uint8_t {
    kIdle,       // no byte of a request
    kHead,       // part of a head
    kHandling,   // the handler has the request
    kBody,       // and waits for its body
    kSending,    // a response is under way
    kSkipping,   // the rest of a body nobody wants
    kLingering,  // the last response is out, the client still sends
    kClosed,
  };

  static void OnRecv(loop::Loop* loop, Operation* op, const Entry& entry);
  static void OnSent(loop::Loop* loop, Operation* op, const Entry& entry);

  void Received(const Entry& entry);
  void ReceivedEarly(std::string_view data);
  void Process();
  bool TakeEarly();
  bool ParseHead();
  bool DecodeBody();
  void StartHandling();
  bool TakeResponse(Release* release);
  void Send(int64_t expected, Operation* op);
  bool NextIsHere() const;
  void PushOut();
  void Sent(int64_t bytes, int64_t now_ns);
  void EndResponse();
  void EndRequest();
  void Recv();
  void StartRecv(uint16_t flags);
  void Drop(InputBuffer* buffer);
  void FailRequest(int status);
  void FailBody(int status);
  bool HasUnread() const;
  void Linger();
  void Close();
  void Free();
  void SetDeadline(int64_t after_ns);
  int64_t Progress(int64_t* quiet_ns) const;
  void Close408();

  State state_ = State::kIdle;
  bool keep_alive_ = true;
  bool processing_ = false;  // within Process: it goes on by itself
  bool owes_ = false;   // the handler has the exchange and has not responded
  bool ended_ = false;  // no more input comes
  bool freed_ = false;
  bool held_back_ = false;  // the last response, to leave with the next one
  uint8_t pending_ = 0;     // operations whose last entry has not come
  HttpServer* const server_;
  Work* work_ = nullptr;
};
// One client. While it is idle this object is all there is of it.

static_assert(sizeof(Connection) <= 144);

}  // namespace kevent::http

#endif  // SERVER_HTTP_CONNECTION_H_
