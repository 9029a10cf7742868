// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_SERVER_H_
#define SERVER_HTTP_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/http/body.h"
#include "server/http/date.h"
#include "server/http/parser.h"
#include "server/loop/link.h"
#include "server/loop/loop.h"
#include "server/stats/http_counters.h"

namespace kevent::http {

class Connection;
class Exchange;
struct WaitNode;
struct Work;
struct WorkSend;
struct WorkSendfile;

struct Release {
  void (*fn)(void*) = nullptr;
  void* arg = nullptr;

  void operator()() {
    if (fn) fn(arg);
    fn = nullptr;
  }
};
// Called once when bytes lent to a response are not needed any more.

class Handler {
 public:
  virtual ~Handler() = default;

  virtual void Handle(Exchange* exchange) = 0;
  // Answers one request, now or later, with exactly one of Exchange's Respond
  // functions, from the loop's thread. The exchange is valid until then, even
  // if the client has gone away meanwhile.
};
// Must outlive the server it serves.

struct LogRecord {
  std::string_view method;
  std::string_view target;
  int fd;  // the connection's, for getpeername(2); -1: closed meanwhile
  int status;
  uint64_t bytes;       // sent, the head included
  int64_t duration_ns;  // from the head's last byte to the end of the response
};
// What an access log gets to know of a response. Views hold during the call.

class Exchange {
 public:
  const Request& request() const;
  // Valid until the response is given. Views in it lie in the connection's
  // buffers.

  loop::Loop* loop() const;
  int fd() const;  // the connection's descriptor; -1 when it was closed

  bool keep_alive() const;
  // The connection stays open after this response.
  void CloseAfter();
  // It does not.

  std::string_view date() const;
  // The value of a Date field for now (RFC 9110 section 6.6.1).
  int64_t unix_time() const;  // seconds

  std::span<char> scratch();
  // 2 KiB for a head, the connection's own until the response is out.

  std::string_view connection_field() const;
  // "Connection: close\r\n", "Connection: keep-alive\r\n" (HTTP/1.0) or "".

  using BodyFn = absl::AnyInvocable<void(Exchange*, int status, std::string)>;
  void ReadBody(size_t limit, BodyFn done);
  // Collects the request's body, at most `limit` bytes, then calls `done`,
  // maybe at once, with status 200; or with 400, 408 (body_timeout_ns), 413 or
  // 431 for RespondError.
  // Sends 100 Continue if it was asked for. A client that goes away in the
  // middle ends the exchange: `done` is destroyed without a call.

  static constexpr size_t kPieces = 4;

  void Respond(int status, std::span<const std::string_view> pieces,
               Release release = {});
  // Sends `pieces` (at most kPieces), which are a whole message, head and body.
  // They must live until `release` is called, which may be within this call.

  void RespondByReference(int status, std::span<const std::string_view> pieces,
                          Release release = {});
  // The same of bytes that never change any more, which the socket may get
  // without a copy (SendOp::by_reference says what that asks for). `release` is
  // called when they are not needed here any more.

  void RespondFile(int status, std::string_view head, int file, int64_t offset,
                   int64_t length, Release release = {},
                   FileMemo* memo = nullptr);
  // Sends `head` and then a range of a file (SendfileOp, FileMemo). A file that
  // turns out shorter than promised ends the connection, so that the client
  // notices.

  void RespondError(int status, std::string_view extra_fields = {});
  // A small page. `extra_fields` are complete lines.

  void Redirect(int status, std::string_view location);
  // 301, 302, 303, 307 or 308. `location` is a URI reference as it goes out.

  void Reply(int status, std::string_view content_type, std::string body);
  // A whole response with Date, Content-Type, Content-Length; no body for HEAD.

 private:
  friend class Connection;
  friend struct Work;
  Exchange() = default;
  Connection* connection_ = nullptr;
};
// One request and its response.

class HttpServer {
 public:
  static constexpr size_t kDrainStep = 256;
  // Connections that one turn of the loop closes when it drains or closes all.

  struct Options {
    Limits limits;
    int64_t header_timeout_ns = 60'000'000'000;
    // From the first byte of a request to the last of its head: 408.
    int64_t body_timeout_ns = 60'000'000'000;
    // Between two pieces of a body: 408. One that nobody wants: closed.
    int64_t idle_timeout_ns = 75'000'000'000;  // of a kept-alive connection
    int64_t send_timeout_ns = 60'000'000'000;
    // Since the last progress of a response: the connection is reset. Up to
    // twice that where the kernel does not tell when it was, on Unix sockets.
    int64_t linger_ns = 2'000'000'000;
    // How long what a client still sends is read after an early last response.
    uint32_t max_connections = 1u << 20;  // more wait in the backlog
    uint32_t buffers = 512;               // for input; a power of two
    uint32_t buffer_bytes = 4096;
    std::string server_name = "kevent";
  };

  using LogFn = absl::AnyInvocable<void(const LogRecord&)>;

  static absl::StatusOr<std::unique_ptr<HttpServer>> Create(
      loop::Loop* loop, Handler* handler, const Options& options);

  ~HttpServer();
  // Closes all connections and runs the loop until they are gone, which they
  // are when every handler has responded. Destroy it in the loop's thread (not
  // from within a callback), or when the loop does not run, and before the
  // loop.

  void SetLog(LogFn log) { log_.log = std::move(log); }

  void Listen(int fd);
  // Accepts from a listening socket, which the server owns from now on. Out of
  // descriptors or memory it tries again when a connection has ended or 100 ms
  // later; the connections wait in the backlog.

  void StopListening(int fd);
  // Closes one of the listening sockets; its connections live on.

  void Configure(Handler* handler, const Options& options);
  // Requests that come from now on go to `handler`, and these options hold, for
  // connections that wait for a request already, too. Of them
  // limits.header_bytes, buffers and buffer_bytes stay as they were. The
  // handler before must live until it has responded to all it was given.

  void Drain(absl::AnyInvocable<void()> done);
  // Closes the listeners and idle connections, the latter some at a time
  // (kDrainStep), lets requests under way finish with "Connection: close", then
  // calls `done`. A second one while it drains adds another `done`.

  void Undrain();
  // Takes connections again, once Listen is called anew. What would have been
  // called at the end of the drain is dropped. Connections that were told so
  // still close.

  bool draining() const { return draining_; }
  bool listening() const;
  // Some listening socket may still take connections: after Drain the kernel
  // may hold on to one for a moment.

  void CloseAll();
  // Ends every connection there is, some at a time (kDrainStep), the first of
  // them now.

  enum class ConnectionState : uint8_t {
    kIdle,      // nothing of a request is here
    kRequest,   // a request is being read or handled
    kResponse,  // a response is under way
  };
  struct ConnectionInfo {
    uint64_t id = 0;  // never 0, of this server alone; later ones are larger
    int fd = -1;
    ConnectionState state = ConnectionState::kIdle;
    int64_t age_ns = 0;
    // Of the response under way. Views hold during the call.
    std::string_view method;
    std::string_view target;
    int status = 0;
  };
  enum class Verdict : uint8_t {
    kKeep,
    kDrain,  // idle: closed; otherwise its next response is the last
    kAbort,  // reset
  };

  class Walk {
   public:
    explicit Walk(HttpServer* server, uint64_t below = UINT64_MAX);
    ~Walk();
    Walk(const Walk&) = delete;
    Walk& operator=(const Walk&) = delete;

    using Fn = absl::FunctionRef<Verdict(const ConnectionInfo&)>;
    bool Next(size_t count, Fn fn);
    // Goes past `count` connections, and calls `fn` for those with an id below
    // `below`. False when there are no more, or the server is gone.

   private:
    friend class HttpServer;
    HttpServer* server_;
    Link<Connection>* at_ = nullptr;  // the next to be looked at
    const uint64_t below_;
    Walk* next_ = nullptr;  // the server's list
  };
  // A way past all connections, newest first, in as many steps as one likes:
  // what is open from its beginning to its end is met exactly once. Other than
  // a connection's address its id may be told to anybody. The loop's thread
  // alone; it may outlive the server.

  std::string_view date() { return Date(); }
  // The value of a Date field for now.

  const stats::HttpCounters& counters() const { return counters_; }
  size_t connections() const { return connection_count_; }
  loop::Loop* loop() const { return loop_; }
  const Options& options() const { return options_; }

 private:
  friend class Connection;
  friend class Exchange;
  struct Acceptor;
  union Slot;

  struct WaitTimer : loop::Timer {
    explicit WaitTimer(HttpServer* s) : loop::Timer(OnWaited), server(s) {}
    HttpServer* const server;
  };

  struct Finished {
    explicit operator bool() const { return true; }
    void operator()(LogRecord record);
    HttpServer* server;
    LogFn log;
  };
  // What a connection tells of each response: the histogram gets it, and the
  // log if there is one.

  HttpServer(loop::Loop* loop, Handler* handler, const Options& options);

  static void OnAccept(loop::Loop* loop, Operation* op, const Entry& entry);
  static void OnRetry(loop::Loop* loop, loop::Timer* timer);
  void StartAccept(Acceptor* acceptor);
  void ResumeAccept();
  void Adopt(int fd);
  enum Waiting { kForFirst, kForNext, kWaitings };  // request
  void Wait(Connection* connection, Waiting what);
  int64_t WaitsAtMost(int what) const;
  static void OnWaited(loop::Loop* loop, loop::Timer* timer);
  void EndWaits();
  bool BringsRequest(int fd);
  static void EndSome(std::unique_ptr<Walk> walk, Verdict verdict);
  void Removed(Connection* connection);
  Work* TakeWork();
  void PutWork(Work* work);
  std::string_view Date();
  void CheckDrained();

  loop::Loop* const loop_;
  Handler* handler_;
  Options options_;
  BufferPool* pool_ = nullptr;
  Finished log_;
  std::vector<std::unique_ptr<Acceptor>> acceptors_;
  Link<Connection> all_;               // newest first
  Link<WaitNode> waiting_[kWaitings];  // those that wait longest first
  WaitTimer wait_timer_;
  uint64_t last_id_ = 0;
  Walk* walks_ = nullptr;
  size_t connection_count_ = 0;
  std::vector<std::unique_ptr<Work>> unused_work_;
  std::vector<std::unique_ptr<Slot[]>> slots_;  // memory of connections
  Slot* unused_slots_ = nullptr;
  DateCache date_;
  int64_t date_until_ns_ = 0;
  int64_t unix_time_ = 0;
  std::vector<absl::AnyInvocable<void()>> drained_;
  bool draining_ = false;
  bool destroying_ = false;
  uint32_t adopted_ = 0;       // connections, to take samples of them
  uint8_t early_samples_ = 0;  // the last ones: 1 if the request was there
  stats::HttpCounters counters_;
};
// HTTP/1.1 (RFC 9112) on one Loop: keep-alive, pipelining, limits and
// time-outs. Everything belongs to the loop's thread, but counters().

}  // namespace kevent::http

#endif  // SERVER_HTTP_SERVER_H_
