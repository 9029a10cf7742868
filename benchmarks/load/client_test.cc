// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/load/client.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "benchmarks/load/usage.h"
#include "gtest/gtest.h"

namespace kevent::load {
namespace {

constexpr int64_t kMillisecond = 1'000'000;

int64_t NowNs() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * int64_t{1'000'000'000} + ts.tv_nsec;
}

std::string Answer(size_t length, const char* status = "200 OK") {
  return std::string("HTTP/1.1 ") + status +
         "\r\nServer: test\r\ncontent-length: " + std::to_string(length) +
         "\r\n\r\n" + std::string(length, 'x');
}

// Answers every request with the same bytes, in a thread of its own.
class Server {
 public:
  explicit Server(std::string answer) : answer_(std::move(answer)) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    address_.sin_family = AF_INET;
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address_;
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address_), size), 0);
    EXPECT_EQ(listen(listener_, 128), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address_), &size);
    stop_ = eventfd(0, 0);
  }
  ~Server() {
    uint64_t one = 1;
    EXPECT_EQ(write(stop_, &one, sizeof one), ssize_t{sizeof one});
    thread_.join();
    for (auto& [fd, unused] : input_) close(fd);
    close(listener_);
    close(stop_);
  }

  void Start() {
    thread_ = std::thread([this] { Run(); });
  }

  const sockaddr_in& address() const { return address_; }
  uint64_t connections() const { return accepted_; }

  uint64_t asked_b() const { return asked_b_; }
  // Requests for /b.

  std::map<std::string, std::string> answer_of;  // instead, by path
  bool close_after = false;                      // the answer
  int64_t first_delay_ns = 0;                    // of the first answer
  uint64_t silent_after = UINT64_MAX;
  // Answers no more after so many.

 private:
  void Run() {
    for (;;) {
      std::vector<pollfd> polls = {{stop_, POLLIN, 0}, {listener_, POLLIN, 0}};
      for (auto& [fd, unused] : input_) polls.push_back({fd, POLLIN, 0});
      poll(polls.data(), polls.size(), -1);
      if (polls[0].revents) return;
      if (polls[1].revents) {
        input_[accept(listener_, nullptr, nullptr)];
        ++accepted_;
      }
      for (size_t i = 2; i < polls.size(); ++i) {
        if (polls[i].revents) Receive(polls[i].fd);
      }
    }
  }

  void Receive(int fd) {
    std::string& input = input_[fd];
    char buffer[4096];
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n <= 0) return Drop(fd);
    input.append(buffer, static_cast<size_t>(n));
    for (size_t end; (end = input.find("\r\n\r\n")) != input.npos;) {
      if (!Reply(fd, input.substr(4, input.find(' ', 4) - 4))) return;
      input.erase(0, end + 4);
    }
  }

  // Answers one request; false if the connection is gone.
  bool Reply(int fd, const std::string& path) {
    if (answers_ == 0) {
      const int64_t until = NowNs() + first_delay_ns;
      for (int64_t left; (left = until - NowNs()) > 0;) {
        poll(nullptr, 0, static_cast<int>(left / kMillisecond + 1));
      }
    }
    if (answers_++ >= silent_after) return true;
    auto at = answer_of.find(path);
    const std::string& answer = at == answer_of.end() ? answer_ : at->second;
    send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
    asked_b_ += path == "/b";
    if (close_after) Drop(fd);
    return !close_after;
  }

  void Drop(int fd) {
    close(fd);
    input_.erase(fd);
  }

  const std::string answer_;
  sockaddr_in address_ = {};
  int listener_ = -1;
  int stop_ = -1;
  uint64_t answers_ = 0;
  std::atomic<uint64_t> accepted_ = 0;
  std::atomic<uint64_t> asked_b_ = 0;
  std::map<int, std::string> input_;
  std::thread thread_;
};

Options For(const Server& server, int64_t length) {
  Options options;
  options.address = server.address();
  options.targets = {{"/a", length}, {"/b", length}};
  options.connections = 4;
  options.window_ns = 50 * kMillisecond;
  options.grace_ns = 100 * kMillisecond;
  return options;
}

int Ignore() { return 0; }

int64_t ThreadCpuNs() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * int64_t{1'000'000'000} + t.tv_nsec;
}

TEST(ClientTest, ClosedLoopCountsWholeAnswers) {
  for (size_t length : {0, 10, 4096, 200'000}) {
    Server server(Answer(length));
    server.Start();
    int calls = 0;
    Client client(For(server, static_cast<int64_t>(length)), [&] { ++calls; });
    ASSERT_TRUE(client.Run().ok());
    const Result& r = client.result();
    EXPECT_EQ(calls, 2);
    EXPECT_GT(r.answers, 4u);
    EXPECT_EQ(r.latency.count(), r.answers);
    EXPECT_EQ(r.answers_in_time, r.answers);
    EXPECT_EQ(r.errors.total(), 0u);
    EXPECT_EQ(server.connections(), 4u);
    // Of the four under way at each end a part may be counted.
    EXPECT_LE(r.body_bytes, (r.answers + 4) * length);
    EXPECT_GE(r.body_bytes + 4 * length, r.answers * length);
    EXPECT_GE(r.bytes, r.body_bytes);
  }
}

TEST(ClientTest, AsksInTheOrderOfTheSequence) {
  Server server("");
  server.answer_of = {{"/a", Answer(10)}, {"/b", Answer(9000)}};
  server.Start();
  Options options = For(server, 10);
  options.targets = {{"/a", 10}, {"/b", 9000}};
  options.sequence = {0, 1, 1, 1};
  Client client(options, Ignore);
  ASSERT_TRUE(client.Run().ok());
  const Result& r = client.result();
  EXPECT_GT(r.answers, 8u);
  EXPECT_EQ(r.errors.total(), 0u);
  // Three of four, but for those under way at either end.
  EXPECT_NEAR(static_cast<double>(server.asked_b()),
              0.75 * static_cast<double>(r.answers), 8);
}

TEST(ClientTest, PipelinedAnswersAreTakenApart) {
  // Several in one read; a head that is cut by the read; bodies longer than it.
  for (size_t length : {0, 10, 1000, 4000, 50'000}) {
    Server server(Answer(length));
    server.Start();
    Options options = For(server, static_cast<int64_t>(length));
    options.pipeline = 7;
    Client client(options, Ignore);
    ASSERT_TRUE(client.Run().ok());
    const Result& r = client.result();
    EXPECT_GT(r.answers, 28u) << length;
    EXPECT_EQ(r.errors.total(), 0u) << length;
    EXPECT_EQ(server.connections(), 4u);
    EXPECT_LE(r.body_bytes, (r.answers + 28) * length);
    EXPECT_GE(r.body_bytes + 28 * length, r.answers * length);
  }
}

TEST(ClientTest, ServerMayEndAPipelinedConnectionIfItSaysSo) {
  std::string answer = Answer(100);
  answer.insert(answer.find("\r\n") + 2, "Connection: close\r\n");
  Server server(answer);
  server.close_after = true;
  server.Start();
  Options options = For(server, 100);
  options.pipeline = 3;
  Client client(options, Ignore);
  ASSERT_TRUE(client.Run().ok());
  EXPECT_GT(client.result().answers, 4u);
  EXPECT_EQ(client.result().errors.total(), 0u);
}

TEST(ClientTest, MoreAnswersThanAskedForAreAnError) {
  Server server(Answer(10) + Answer(10));
  server.Start();
  Options options = For(server, 10);
  options.pipeline = 2;
  Client client(options, Ignore);
  client.Run().IgnoreError();
  EXPECT_GT(client.result().errors.total(), 0u);
}

TEST(ClientTest, ConnectionForEachRequest) {
  Server server(Answer(100));
  server.close_after = true;
  server.Start();
  Options options = For(server, 100);
  options.close = true;
  Client client(options, Ignore);
  ASSERT_TRUE(client.Run().ok());
  EXPECT_GT(client.result().answers, 4u);
  EXPECT_EQ(client.result().errors.total(), 0u);
  EXPECT_GE(server.connections(), client.result().answers);
}

TEST(ClientTest, ServerMayEndAKeptConnectionIfItSaysSo) {
  std::string answer = Answer(100);
  answer.insert(answer.find("\r\n") + 2, "Connection: close\r\n");
  Server server(answer);
  server.close_after = true;
  server.Start();
  for (double rate : {0.0, 500.0}) {
    Options options = For(server, 100);
    options.rate = rate;
    options.grace_ns = 5000 * kMillisecond;
    Client client(options, Ignore);
    ASSERT_TRUE(client.Run().ok());
    EXPECT_GT(client.result().answers, 4u);
    EXPECT_EQ(client.result().errors.total(), 0u);
    EXPECT_EQ(client.result().unanswered, 0u);
  }
}

TEST(ClientTest, WrongAnswersAreErrors) {
  struct Case {
    std::string answer;
    uint64_t Errors::*kind;
  };
  const Case cases[] = {
      {Answer(10, "404 Not Found"), &Errors::status},
      {Answer(11), &Errors::length},
      {Answer(10) + "too much", &Errors::length},
      {"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
       &Errors::head},
      {"HTTP/1.1 200 OK\r\n\r\n0123456789", &Errors::head},
      {"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n0123456789",
       &Errors::head},
  };
  for (const Case& c : cases) {
    Server server(c.answer);
    server.Start();
    Client client(For(server, 10), Ignore);
    // It may give up before the time is over.
    client.Run().IgnoreError();
    EXPECT_GT(client.result().errors.*c.kind, 0u) << c.answer;
    EXPECT_EQ(client.result().answers, 0u) << c.answer;
  }
}

TEST(ClientTest, ShortAnswerIsAnError) {
  std::string answer = Answer(10'000);
  answer.resize(answer.size() - 1);
  Server server(answer);
  server.close_after = true;
  server.Start();
  Client client(For(server, 10'000), Ignore);
  client.Run().IgnoreError();
  EXPECT_GT(client.result().errors.io, 0u);
  EXPECT_EQ(client.result().answers, 0u);
}

TEST(ClientTest, NobodyListensIsAnError) {
  Options options;
  {
    Server server("");
    server.Start();
    options = For(server, 1);
  }
  EXPECT_FALSE(Client(options, Ignore).Run().ok());
}

TEST(ClientTest, OpenLoopKeepsItsRate) {
  Server server(Answer(10));
  server.Start();
  Options options = For(server, 10);
  options.rate = 1000;
  options.window_ns = 200 * kMillisecond;
  options.grace_ns = 5000 * kMillisecond;
  Client client(options, Ignore);
  ASSERT_TRUE(client.Run().ok());
  EXPECT_NEAR(static_cast<double>(client.result().answers), 200, 1);
  EXPECT_EQ(client.result().unanswered, 0u);
}

TEST(ClientTest, OpenLoopRests) {
  Server server(Answer(10));
  server.Start();
  for (bool rest : {false, true}) {
    Options options = For(server, 10);
    options.rate = 500;
    options.rest = rest;
    options.window_ns = 200 * kMillisecond;
    options.grace_ns = 5000 * kMillisecond;
    Client client(options, Ignore);
    const int64_t begin = ThreadCpuNs();
    ASSERT_TRUE(client.Run().ok());
    const int64_t took = ThreadCpuNs() - begin;
    EXPECT_NEAR(static_cast<double>(client.result().answers), 100, 1);
    EXPECT_EQ(client.result().unanswered, 0u);
    if (rest) {
      EXPECT_LT(took, options.window_ns / 2);
    }
  }
}

TEST(ClientTest, OpenLoopTimesFromWhenRequestsWereDue) {
  // While the first answer is late by 100 ms, the requests that wait for the
  // one connection age: half of the 200 due in the window at least wait long.
  Server server(Answer(10));
  server.first_delay_ns = 100 * kMillisecond;
  server.Start();
  Options options = For(server, 10);
  options.connections = 1;
  options.rate = 1000;
  options.window_ns = 100 * kMillisecond;
  options.grace_ns = 5000 * kMillisecond;
  Client client(options, Ignore);
  ASSERT_TRUE(client.Run().ok());
  const Result& r = client.result();
  EXPECT_NEAR(static_cast<double>(r.answers), 100, 1);
  EXPECT_GE(r.most_waiting, 90u);
  // The window was nearly over when the first answer came.
  EXPECT_LT(r.answers_in_time, r.answers);
  EXPECT_GE(r.latency.Percentile(0.5), 40 * kMillisecond);
  EXPECT_GE(r.latency.max_ns(), 99 * kMillisecond);
}

TEST(ClientTest, OpenLoopCountsWhatIsNeverAnswered) {
  Server server(Answer(10));
  server.silent_after = 10;
  server.Start();
  Options options = For(server, 10);
  options.connections = 2;
  options.rate = 1000;
  Client client(options, Ignore);
  ASSERT_TRUE(client.Run().ok());
  const Result& r = client.result();
  EXPECT_NEAR(static_cast<double>(r.unanswered), 40, 1);
  EXPECT_EQ(r.latency.count(), r.answers + r.unanswered);
  EXPECT_GE(r.latency.Percentile(0.99), options.grace_ns);
}

TEST(UsageTest, CountsThisProcess) {
  const pid_t self = getpid();
  const Usage before = ReadUsage({&self, 1});
  const int64_t until = NowNs() + 20 * kMillisecond;
  while (NowNs() < until) {
  }
  const Usage after = ReadUsage({&self, 1});
  const Usage spent = Difference(after, before);
  EXPECT_GT(spent.server_cpu_ns, 0);
  EXPECT_GT(spent.client_cpu_ns, 0);
  // The server is this process too here.
  EXPECT_NEAR(static_cast<double>(spent.server_cpu_ns),
              static_cast<double>(spent.client_cpu_ns), 5e6);
  ASSERT_EQ(spent.cpus.size(),
            static_cast<size_t>(sysconf(_SC_NPROCESSORS_ONLN)));
  int64_t total = 0;
  for (const CpuTimes& cpu : spent.cpus) {
    total += cpu.total_us;
    EXPECT_LT(cpu.total_us, 60'000'000);
    EXPECT_LE(cpu.busy_us, cpu.total_us);
  }
  EXPECT_GT(total, 0);
}

TEST(UsageTest, GoneProcessIsNothing) {
  const pid_t none = 1 << 22;  // the kernel gives none of that number
  EXPECT_EQ(ReadUsage({&none, 1}).server_cpu_ns, 0);
}

}  // namespace
}  // namespace kevent::load
