// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_TEST_CLIENT_H_
#define SERVER_HTTP_TEST_CLIENT_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kevent::http {

struct ClientResponse {
  int status = 0;  // 0: there was none
  int minor = 0;   // the y of HTTP/1.y
  std::vector<std::pair<std::string, std::string>> fields;
  std::string body;

  bool Has(std::string_view name) const;
  std::string_view Get(std::string_view name) const;
  // The first field of that name in any case; empty without one.
};

class ResponseReader {
 public:
  void Expect(bool head) { heads_.push_back(head); }
  // Another response is to come; `head`: to HEAD, without a body.

  bool Feed(std::string_view data);
  // Bytes of the stream. False if they cannot be HTTP/1.1, or nothing is
  // expected; error() says why, and the stream cannot go on.

  bool End();
  // The stream has ended. False if it did so in the middle of a response.

  bool Take(ClientResponse* out);
  // The next whole response, 1xx ones included; false without one.

  size_t expected() const { return heads_.size(); }
  bool idle() const { return state_ == State::kHead && input_.empty(); }
  // Between two responses.

  const ClientResponse& partial() const { return response_; }
  // The one under way, as far as it has come.
  const std::string& error() const { return error_; }

 private:
  enum class State {
    kHead,
    kLength,
    kUntilEnd,
    kChunkSize,
    kChunkData,
    kChunkEnd,
    kTrailer
  };

  bool Fail(std::string text);
  bool ParseHead(std::string_view head);
  bool Step(bool* more);
  bool TakeLine(std::string_view* line);
  void Finish();

  State state_ = State::kHead;
  std::string input_;
  size_t used_ = 0;  // of input_
  size_t left_ = 0;  // of the body or chunk
  ClientResponse response_;
  std::deque<bool> heads_;
  std::deque<ClientResponse> done_;
  std::string error_;
};
// Reads a stream of responses, strictly (RFC 9112 sections 4 to 7): bodies by
// Content-Length, chunked, or up to the end of the connection. It shares no
// code with the server.

class TestClient {
 public:
  enum class End { kClosed, kReset, kData, kTimeout };

  explicit TestClient(uint16_t port, int receive_buffer = 0);
  // Connects to 127.0.0.1. `receive_buffer`: bytes of SO_RCVBUF, 0 for the
  // system's. See connected().
  ~TestClient() { Close(); }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  bool connected() const { return fd_ >= 0; }
  int fd() const { return fd_; }

  bool Send(std::string_view data);
  // All of it. False if the server has closed or takes nothing any more.

  bool Receive(ClientResponse* out, bool head = false);
  // Waits for the next response. False at the end of the stream, on nonsense
  // and at the deadline.

  ClientResponse Ask(std::string_view request, bool head = false);
  // Send and Receive; status 0 if either fails.
  ClientResponse Get(std::string_view target, std::string_view fields = {});
  // GET with Host and further field lines.
  ClientResponse Head(std::string_view target, std::string_view fields = {});

  End AwaitEnd();
  // Waits for the connection's end; kData if something comes instead.
  bool Readable(int timeout_ms);
  // Something can be read, the end included.
  bool AwaitReset();
  // Waits for a reset, without reading anything.

  ssize_t Read(char* to, size_t size);
  // What is there: 0 at the end, negative errno, -ETIMEDOUT at the deadline.

  void CloseWrite();
  void Reset();  // closes by RST
  void Close();

  ResponseReader& reader() { return reader_; }
  static std::string Request(std::string_view method, std::string_view target,
                             std::string_view fields = {});

 private:
  int fd_ = -1;
  ResponseReader reader_;
};
// One connection for tests, in a blocking manner: every call ends within
// kClientDeadlineMs. One thread.

inline constexpr int kClientDeadlineMs = 30'000;

struct LoadRequest {
  std::string text;
  bool head = false;
  size_t tag = 0;
};

std::string RunLoad(
    uint16_t port, size_t connections, size_t depth,
    const std::function<bool(LoadRequest* next)>& next,
    const std::function<void(size_t tag, const ClientResponse&)>& done);
// Sends what `next` gives until it returns false, over that many keep-alive
// connections at once, `depth` requests in one write each time a connection has
// all its answers. `done` gets each response. Returns "" or what went wrong; a
// connection that ends before its last response is an error.

}  // namespace kevent::http

#endif  // SERVER_HTTP_TEST_CLIENT_H_
