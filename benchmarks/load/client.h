// SPDX-License-Identifier: Apache-2.0
#ifndef BENCHMARKS_LOAD_CLIENT_H_
#define BENCHMARKS_LOAD_CLIENT_H_

#include <netinet/in.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "benchmarks/load/histogram.h"

namespace kevent::load {

struct Target {
  std::string path;
  int64_t length = 0;  // bytes of the body that a right answer has
};

struct Options {
  sockaddr_in address = {};
  std::vector<Target> targets;
  // Indices of targets: the order in which they are asked for, over all
  // connections, and again from the beginning. If empty, in turn.
  std::vector<uint32_t> sequence;
  int connections = 64;
  // Closed loop, connections kept: so many requests for the same target go out
  // together, and the next ones when all of them are answered.
  int pipeline = 1;
  // Requests a second. 0 is the closed loop: a connection asks again as soon
  // as it has its answer. Otherwise the open loop: requests fall due at equal
  // distances whatever became of those before, wait if no connection is free,
  // and are timed from when they were due.
  double rate = 0;
  // A connection for each request, which the server closes.
  bool close = false;
  // Never sleep in the kernel. The open loop does so anyway: it has to be on
  // time.
  bool spin = false;
  // The open loop sleeps until the next request is due, and may then be late by
  // the kernel's timer slack, 50 us: for a processor that others want too.
  bool rest = false;
  // If not empty, the folder that the server serves: each file leaves the page
  // cache right before it is asked for.
  std::string evict_root;
  int64_t warmup_ns = 0;  // before the window
  int64_t window_ns = 1'000'000'000;
  int64_t grace_ns = 2'000'000'000;
  // Open loop: how long after the window answers are waited for.
};

struct Errors {
  uint64_t connect = 0;  // connections that could not be made
  uint64_t io = 0;       // reset, or ended in mid-answer
  uint64_t status = 0;   // answers other than 200
  uint64_t length = 0;   // answers whose length is not the target's
  uint64_t head = 0;     // answers that are no HTTP/1.1 with a length
  uint64_t total() const { return connect + io + status + length + head; }
};

struct Result {
  // Closed loop: answers that ended in the window. Open loop: answers to
  // requests due in it.
  uint64_t answers = 0;
  uint64_t answers_in_time =
      0;                    // answers that ended in the window, in any loop
  Histogram latency;        // of these, and of `unanswered`, see there
  uint64_t body_bytes = 0;  // received in the window, heads left out
  uint64_t bytes = 0;       // received in the window
  double seconds = 0;       // length of the window
  uint64_t unanswered = 0;  // due in the window, and not answered in the grace
                            // time: in `latency` with the time they waited
  uint64_t most_waiting = 0;  // requests due that had no connection, at most
  Errors errors;
};

// A client of one thread that makes and measures load. Bodies are discarded in
// the kernel (MSG_TRUNC, tcp(7)): what a client of the real world does with
// them is not the server's concern, and it must not be the bottleneck.
class Client {
 public:
  // `at_window` is called when the window begins and when it ends, to read
  // counters.
  Client(const Options& options, std::function<void()> at_window);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Once. Fails if the server cannot be reached or goes on failing.
  absl::Status Run();

  const Result& result() const { return result_; }

 private:
  enum class State : uint8_t {
    kClosed,
    kConnecting,
    kFree,
    kHead,
    kBody,
    kEnding,  // answered; waits for the server to close
  };

  struct Connection {
    int fd = -1;
    State state = State::kClosed;
    bool ends = false;  // the server closes after this answer
    uint32_t target = 0;
    int pending = 0;      // answers that are missing
    int64_t left = 0;     // bytes of the body that are missing
    int64_t due_ns = 0;   // when the request was to be sent
    std::string partial;  // a head that has not ended yet
  };

  enum class Phase : uint8_t { kConnect, kWarmup, kWindow, kGrace };

  absl::Status ConnectAll();
  void Wait(int64_t until);
  bool AllAnswered() const;
  static bool Asked(const Connection& c);
  void GiveUp();
  void SendDue(int64_t now);
  int64_t NextDue() const;
  void Begin(Connection* c, int64_t due_ns);
  void Open(Connection* c);
  void Shut(Connection* c);
  void Fail(Connection* c, uint64_t* kind);
  void SendRequest(Connection* c);
  uint32_t NextTarget();
  void OnEvents(Connection* c, uint32_t events);
  void Connected(Connection* c);
  bool ReceiveHead(Connection* c, bool ended);
  bool ReceiveBody(Connection* c, bool ended);
  void Answered(Connection* c);
  void Next(Connection* c);
  void Evict(const Target& target);
  bool InWindow(int64_t ns) const {
    return ns >= window_begin_ && ns < window_end_;
  }

  const Options options_;
  const std::function<void()> at_window_;
  std::vector<std::string> requests_;
  // Ready-made: all that are sent together, for each target.
  std::vector<Connection> connections_;
  std::unique_ptr<char[]> buffer_;
  int epoll_ = -1;
  Phase phase_ = Phase::kConnect;
  size_t next_ = 0;  // in the sequence, or target
  int64_t now_ = 0;
  int64_t window_begin_ = 0;
  int64_t window_end_ = 0;

  std::deque<Connection*> free_;  // have no request; all of them at first

  // Open loop.
  double interval_ns_ = 0;
  int64_t first_due_ = 0;
  uint64_t sent_ = 0;
  std::deque<int64_t> waiting_;  // due, without a connection

  Result result_;
  absl::Status status_;
};

// The head of an answer, as far as a load generator cares.
struct AnswerHead {
  int status = 0;
  int64_t length = -1;  // Content-Length; -1 without one
  bool close = false;   // the server closes the connection after this answer
};

// `text` is a whole head. False if it is not one of HTTP/1.1.
bool ParseAnswerHead(std::string_view text, AnswerHead* head);

}  // namespace kevent::load

#endif  // BENCHMARKS_LOAD_CLIENT_H_
