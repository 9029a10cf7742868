// SPDX-License-Identifier: Apache-2.0
#include "server/loop/proactor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/loop/task.h"
#include "server/loop/test_util.h"

namespace kevent::loop {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

constexpr int64_t kMs = 1000000;

class ProactorTest : public testing::TestWithParam<EngineKind> {
 protected:
  void RunAll() {
    RunUntil(loop_.get(), [&] { return loop_->tasks() == 0; });
  }
  AwaitOptions Deadline(int64_t from_now) {
    AwaitOptions options;
    options.deadline_ns = loop_->UpdateNow() + from_now;
    return options;
  }

  std::unique_ptr<Loop> loop_ = MakeLoop(GetParam());
  Proactor io_{loop_.get()};
  std::vector<int64_t> log_;
};

INSTANTIATE_FOR_ENGINES(ProactorTest);

std::span<std::byte> Writable(std::string* text) {
  return std::as_writable_bytes(std::span(text->data(), text->size()));
}

// A TCP listener on a free port of loopback.
int Listen(sockaddr_in* address) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  *address = {};
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof *address;
  auto* generic = reinterpret_cast<sockaddr*>(address);
  if (bind(fd, generic, length) < 0 || listen(fd, 256) < 0 ||
      getsockname(fd, generic, &length) < 0) {
    abort();
  }
  return fd;
}

int Socket() {
  return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

// --- An echo server and 64 clients, all in one loop.

Task<void> Echo(Proactor io, int fd) {
  std::byte buffer[4096];
  for (;;) {
    int64_t n = co_await io.Recv(fd, buffer);
    EXPECT_GE(n, 0);
    if (n <= 0) break;
    EXPECT_EQ(co_await io.Send(fd, std::span<const std::byte>(
                                       buffer, static_cast<size_t>(n))),
              n);
  }
  EXPECT_EQ(co_await io.Close(fd), 0);
}

Task<void> Serve(Proactor io, int listener, int connections) {
  for (int i = 0; i < connections; ++i) {
    int64_t fd = co_await io.Accept(listener);
    EXPECT_GE(fd, 0);
    if (fd < 0) co_return;
    io.loop()->Spawn(Echo(io, static_cast<int>(fd)));
  }
}

Task<void> Client(Proactor io, sockaddr_in address, int id, int rounds) {
  int fd = Socket();
  EXPECT_EQ(co_await io.Connect(fd, reinterpret_cast<sockaddr*>(&address),
                                sizeof address),
            0);
  std::mt19937 random(static_cast<unsigned>(id));
  for (int round = 0; round < rounds; ++round) {
    std::string sent(1 + random() % 10000, ' ');
    for (char& c : sent) c = static_cast<char>(random());
    std::string half = sent.substr(0, sent.size() / 2);
    std::string rest = sent.substr(half.size());
    iovec pieces[2] = {{half.data(), half.size()}, {rest.data(), rest.size()}};
    EXPECT_EQ(co_await io.Send(fd, std::span<const iovec>(pieces)),
              static_cast<int64_t>(sent.size()));
    std::string got;
    while (got.size() < sent.size()) {
      std::byte buffer[3000];
      int64_t n = co_await io.Recv(fd, buffer);
      EXPECT_GT(n, 0);
      if (n <= 0) co_return;
      got.append(reinterpret_cast<char*>(buffer), static_cast<size_t>(n));
    }
    EXPECT_EQ(got, sent);
  }
  EXPECT_EQ(co_await io.Shutdown(fd, SHUT_WR), 0);
  std::byte byte[1];
  EXPECT_EQ(co_await io.Recv(fd, byte), 0);
  EXPECT_EQ(co_await io.Close(fd), 0);
}

TEST_P(ProactorTest, AnEchoServerServesManyClients) {
  sockaddr_in address;
  int listener = Listen(&address);
  constexpr int kClients = 64;
  loop_->Spawn(Serve(io_, listener, kClients));
  for (int i = 0; i < kClients; ++i) {
    loop_->Spawn(Client(io_, address, i, 20));
  }
  RunAll();
  EXPECT_EQ(loop_->Close(listener), 0);
  EXPECT_EQ(loop_->queue().stats().operations, 0u);
}

// --- Deadlines.

Task<void> RecvInto(Proactor io, int fd, std::span<std::byte> into,
                    AwaitOptions options, std::vector<int64_t>* log) {
  log->push_back(co_await io.Recv(fd, into, options));
}

TEST_P(ProactorTest, ADeadlineEndsARecvAndLeavesTheSocketUsable) {
  SocketPair pair;
  std::string buffer(8, ' ');
  int64_t start = loop_->UpdateNow();
  loop_->Spawn(
      RecvInto(io_, pair.fds[0], Writable(&buffer), Deadline(3 * kMs), &log_));
  RunAll();
  EXPECT_GE(loop_->now_ns(), start + 3 * kMs);
  EXPECT_THAT(log_, ElementsAre(-ETIMEDOUT));
  WriteAll(pair.fds[1], "later");
  loop_->Spawn(RecvInto(io_, pair.fds[0], Writable(&buffer),
                        Deadline(9000 * kMs), &log_));
  RunAll();
  EXPECT_THAT(log_, ElementsAre(-ETIMEDOUT, 5));
  EXPECT_EQ(buffer.substr(0, 5), "later");
}

TEST_P(ProactorTest, WithADeadlineThatHasPassedNothingIsBegun) {
  SocketPair pair;
  WriteAll(pair.fds[1], "here");
  std::string buffer(8, ' ');
  loop_->Spawn(
      RecvInto(io_, pair.fds[0], Writable(&buffer), Deadline(0), &log_));
  EXPECT_THAT(log_, ElementsAre(-ETIMEDOUT));
  EXPECT_EQ(loop_->queue().stats().submitted, 0u);
}

TEST_P(ProactorTest, ASendCutOffByItsDeadlineTellsHowFarItGot) {
  SocketPair pair;
  std::string big(8 << 20, 'b');
  loop_->Spawn([](Proactor io, int fd, std::string_view data,
                  AwaitOptions options,
                  std::vector<int64_t>* log) -> Task<void> {
    log->push_back(co_await io.Send(fd, Bytes(data), options));
    log->push_back(co_await io.Send(fd, Bytes("more")));
  }(io_, pair.fds[0], big, Deadline(3 * kMs), &log_));
  RunAll();
  ASSERT_EQ(log_.size(), 2u);
  EXPECT_GT(log_[0], 0);
  EXPECT_LT(log_[0], 8 << 20);
  EXPECT_EQ(log_[1], -ECANCELED);
  int64_t got = 0;
  shutdown(pair.fds[0], SHUT_WR);
  std::string buffer(1 << 20, ' ');
  while (ssize_t n = read(pair.fds[1], buffer.data(), buffer.size())) {
    ASSERT_GT(n, 0);
    got += n;
  }
  EXPECT_EQ(got, log_[0]) << "the result is what the peer receives";
}

TEST_P(ProactorTest, ConnectAndAcceptHaveDeadlines) {
  sockaddr_in address;
  int listener = Listen(&address);
  loop_->Spawn([](Proactor io, int fd, AwaitOptions options,
                  std::vector<int64_t>* log) -> Task<void> {
    log->push_back(co_await io.Accept(fd, options));
  }(io_, listener, Deadline(2 * kMs), &log_));
  RunAll();
  EXPECT_THAT(log_, ElementsAre(-ETIMEDOUT));
  loop_->Close(listener);
  int fd = Socket();
  loop_->Spawn([](Proactor io, int s, sockaddr_in to,
                  std::vector<int64_t>* log) -> Task<void> {
    log->push_back(
        co_await io.Connect(s, reinterpret_cast<sockaddr*>(&to), sizeof to));
  }(io_, fd, address, &log_));
  RunAll();
  EXPECT_THAT(log_, ElementsAre(-ETIMEDOUT, -ECONNREFUSED));
  loop_->Close(fd);
}

TEST_P(ProactorTest, AResultThatIsThereWinsOverADeadline) {
  SocketPair pair;
  WriteAll(pair.fds[1], "data");
  std::string buffer(8, ' ');
  CancelSource source;
  AwaitOptions options = Deadline(1);
  options.deadline_ns = loop_->now_ns() + 1;  // due at the next turn
  options.cancel = source.token();
  loop_->Spawn(RecvInto(io_, pair.fds[0], Writable(&buffer), options, &log_));
  source.Cancel();
  RunAll();
  ASSERT_EQ(log_.size(), 1u);
  if (log_[0] == -ECANCELED) {
    // The engine had not tried yet: then nothing may have been taken.
    char rest[8];
    EXPECT_EQ(recv(pair.fds[0], rest, sizeof rest, MSG_DONTWAIT), 4);
  } else {
    EXPECT_EQ(log_[0], 4);
    EXPECT_EQ(buffer.substr(0, 4), "data");
  }
}

// --- Cancel.

TEST_P(ProactorTest, CancelEndsEveryAwaitOfItsToken) {
  SocketPair a;
  SocketPair b;
  CancelSource source;
  AwaitOptions options;
  options.cancel = source.token();
  std::string one(8, ' ');
  std::string two(8, ' ');
  loop_->Spawn(RecvInto(io_, a.fds[0], Writable(&one), options, &log_));
  loop_->Spawn(RecvInto(io_, b.fds[0], Writable(&two), options, &log_));
  loop_->Spawn([](Proactor io, CancelToken token,
                  std::vector<int64_t>* log) -> Task<void> {
    log->push_back(co_await io.Sleep(int64_t{3600000} * kMs, token));
    log->push_back(co_await io.Sleep(int64_t{3600000} * kMs, token));
  }(io_, source.token(), &log_));
  loop_->RunOnce(0);
  EXPECT_TRUE(log_.empty());
  source.Cancel();
  EXPECT_TRUE(log_.empty()) << "Cancel resumes nobody by itself";
  RunAll();
  EXPECT_EQ(log_.size(), 4u);
  EXPECT_THAT(log_, Each(-ECANCELED));
  source.Cancel();
}

TEST_P(ProactorTest, ACoroutineMayCancelItsOwnSource) {
  CancelSource source;
  loop_->Spawn([](Proactor io, CancelSource* own,
                  std::vector<int64_t>* log) -> Task<void> {
    co_await io.Yield();
    own->Cancel();
    log->push_back(co_await io.Sleep(kMs, own->token()));
    log->push_back(co_await io.Sleep(1));
  }(io_, &source, &log_));
  RunAll();
  EXPECT_THAT(log_, ElementsAre(-ECANCELED, 0));
}

struct RaceCounts {
  int64_t sent = 0;
  int64_t received = 0;
  int cancelled = 0;
  int timed_out = 0;
};

Task<void> RacingReader(Proactor io, int fd,
                        std::unique_ptr<CancelSource>* source, uint64_t seed,
                        RaceCounts* counts) {
  std::mt19937_64 random(seed);
  std::byte buffer[700];
  for (;;) {
    AwaitOptions options;
    if (random() % 2) options.cancel = (*source)->token();
    if (random() % 2) {
      options.deadline_ns =
          io.loop()->now_ns() + static_cast<int64_t>(random() % 40000);
    }
    int64_t n = co_await io.Recv(fd, buffer, options);
    if (n == 0) break;
    if (n > 0) counts->received += n;
    if (n == -ETIMEDOUT) ++counts->timed_out;
    if (n == -ECANCELED) ++counts->cancelled;
    EXPECT_TRUE(n > 0 || n == -ETIMEDOUT || n == -ECANCELED) << n;
  }
}

Task<void> RacingWriter(Proactor io, int fd, uint64_t seed,
                        RaceCounts* counts) {
  std::mt19937_64 random(seed);
  std::string data(900, 'r');
  // Goes on until its reader has seen both, however fast or slow the machine
  // is: a reader that finds data at every try has raced with nothing.
  auto seen = [counts] { return counts->cancelled && counts->timed_out; };
  for (int i = 0; i < 150 || (i < 1000 && !seen()); ++i) {
    size_t size = 1 + random() % data.size();
    int64_t n =
        co_await io.Send(fd, Bytes(std::string_view(data).substr(0, size)));
    EXPECT_EQ(n, static_cast<int64_t>(size));
    counts->sent += n;
    if (i >= 150 || random() % 3 == 0) {
      const uint64_t longest =
          60'000 * static_cast<uint64_t>(1 + std::max(0, i - 150));
      co_await io.Sleep(static_cast<int64_t>(random() % longest));
    }
  }
  EXPECT_EQ(co_await io.Shutdown(fd, SHUT_WR), 0);
}

TEST_P(ProactorTest, CancelAndDeadlineRacesLoseNoByte) {
  uint64_t seed = TestSeed();
  std::mt19937_64 random(seed);
  constexpr int kPairs = 8;
  SocketPair pairs[kPairs];
  RaceCounts counts[kPairs];
  std::unique_ptr<CancelSource> sources[kPairs];
  for (int i = 0; i < kPairs; ++i) {
    sources[i] = std::make_unique<CancelSource>();
    loop_->Spawn(
        RacingReader(io_, pairs[i].fds[0], &sources[i], random(), &counts[i]));
    loop_->Spawn(RacingWriter(io_, pairs[i].fds[1], random(), &counts[i]));
  }
  while (loop_->tasks() > 0) {
    loop_->RunOnce(static_cast<int64_t>(random() % 20000));
    if (random() % 4 == 0) {
      auto& source = sources[random() % kPairs];
      source->Cancel();
      source = std::make_unique<CancelSource>();
    }
  }
  for (const RaceCounts& c : counts) {
    EXPECT_EQ(c.sent, c.received);
    EXPECT_GT(c.cancelled, 0);
    EXPECT_GT(c.timed_out, 0);
  }
  EXPECT_EQ(loop_->queue().stats().operations, 0u);
}

// --- The rest.

TEST_P(ProactorTest, SleepTakesItsTime) {
  int64_t start = loop_->UpdateNow();
  loop_->Spawn([](Proactor io, std::vector<int64_t>* log) -> Task<void> {
    log->push_back(co_await io.Sleep(4 * kMs));
  }(io_, &log_));
  RunAll();
  EXPECT_THAT(log_, ElementsAre(0));
  EXPECT_GE(loop_->now_ns(), start + 4 * kMs);
}

TEST_P(ProactorTest, YieldLetsOthersRun) {
  std::string order;
  auto task = [](Proactor io, char name, std::string* out) -> Task<void> {
    for (int i = 0; i < 3; ++i) {
      out->push_back(name);
      co_await io.Yield();
    }
  };
  loop_->Spawn(task(io_, 'a', &order));
  loop_->Spawn(task(io_, 'b', &order));
  EXPECT_EQ(order, "ab");
  RunAll();
  ASSERT_EQ(order.size(), 6u);
  for (size_t i = 0; i < 6; i += 2) EXPECT_NE(order[i], order[i + 1]) << order;
}

TEST_P(ProactorTest, OneThatNeverWaitsDoesNotStarveTheOthers) {
  SocketPair pair;
  int rounds = 0;
  bool stop = false;
  // Every send and every recv of one byte may complete within Submit.
  loop_->Spawn([](Proactor io, const int* fds, int* count,
                  const bool* end) -> Task<void> {
    std::byte byte[1] = {};
    while (!*end) {
      EXPECT_EQ(co_await io.Send(fds[0], byte), 1);
      EXPECT_EQ(co_await io.Recv(fds[1], byte), 1);
      ++*count;
    }
  }(io_, pair.fds, &rounds, &stop));
  EXPECT_LE(rounds, static_cast<int>(Loop::kInlinePerTurn));
  loop_->Post([&] { stop = true; });
  RunAll();
  EXPECT_GE(rounds, 1);
}

TEST_P(ProactorTest, RecvFromAPoolLendsABuffer) {
  absl::StatusOr<BufferPool*> pool = loop_->queue().AddBufferPool(2, 64);
  ASSERT_TRUE(pool.ok()) << pool.status();
  SocketPair pair;
  std::string got;
  loop_->Spawn([](Proactor io, int fd, BufferPool* from,
                  std::string* out) -> Task<void> {
    for (;;) {
      PoolReceived received = co_await io.RecvPool(fd, from);
      EXPECT_GE(received.result, 0);
      EXPECT_EQ(static_cast<int64_t>(received.buffer.bytes().size()),
                received.result);
      if (received.result <= 0) break;
      out->append(reinterpret_cast<char*>(received.buffer.bytes().data()),
                  received.buffer.bytes().size());
    }
  }(io_, pair.fds[0], *pool, &got));
  std::string sent(1000, 'p');
  for (size_t i = 0; i < sent.size(); ++i)
    sent[i] = static_cast<char>('a' + i % 26);
  WriteAll(pair.fds[1], sent);
  shutdown(pair.fds[1], SHUT_WR);
  RunAll();
  EXPECT_EQ(got, sent);
}

TEST_P(ProactorTest, APoolBufferMayOutliveTheLoop) {
  absl::StatusOr<BufferPool*> pool = loop_->queue().AddBufferPool(2, 64);
  ASSERT_TRUE(pool.ok());
  SocketPair pair;
  WriteAll(pair.fds[1], "kept");
  bool have = false;
  loop_->Spawn(
      [](Proactor io, int fd, BufferPool* from, bool* got) -> Task<void> {
        PoolReceived received = co_await io.RecvPool(fd, from);
        *got = received.result == 4;
        // In its frame until the loop's end.
        co_await io.Sleep(int64_t{3600000} * kMs);
      }(io_, pair.fds[0], *pool, &have));
  RunUntil(loop_.get(), [&] { return have; });
  loop_.reset();
}

TEST_P(ProactorTest, SendFileSendsHeaderRangeAndTrailer) {
  int file = memfd_create("proactor_test", MFD_CLOEXEC);
  std::string content(300000, ' ');
  for (size_t i = 0; i < content.size(); ++i) {
    content[i] = static_cast<char>('0' + i % 75);
  }
  WriteAll(file, content);
  SocketPair pair;
  std::string expected = "header" + content.substr(1000, 250000) + "trailer";
  loop_->Spawn([](Proactor io, int fd, int from,
                  std::vector<int64_t>* log) -> Task<void> {
    log->push_back(co_await io.SendFile(fd, Bytes("header"), from, 1000, 250000,
                                        Bytes("trailer")));
    log->push_back(co_await io.Shutdown(fd, SHUT_WR));
  }(io_, pair.fds[0], file, &log_));
  std::string got;
  loop_->Spawn([](Proactor io, int fd, std::string* out) -> Task<void> {
    std::byte buffer[5000];
    for (;;) {
      int64_t n = co_await io.Recv(fd, buffer);
      EXPECT_GE(n, 0);
      if (n <= 0) break;
      out->append(reinterpret_cast<char*>(buffer), static_cast<size_t>(n));
    }
  }(io_, pair.fds[1], &got));
  RunAll();
  close(file);
  EXPECT_THAT(log_, ElementsAre(static_cast<int64_t>(expected.size()), 0));
  EXPECT_EQ(got, expected);
}

TEST_P(ProactorTest, ErrorsComeAsResults) {
  loop_->Spawn([](Proactor io, std::vector<int64_t>* log) -> Task<void> {
    std::byte byte[1];
    log->push_back(co_await io.Recv(-1, byte));
    log->push_back(co_await io.Send(-1, Bytes("x")));
    log->push_back(co_await io.Accept(-1));
    int fd = Socket();
    sockaddr_storage address = {};
    log->push_back(co_await io.Connect(
        fd, reinterpret_cast<sockaddr*>(&address), sizeof address + 1));
    log->push_back(co_await io.Close(fd));
  }(io_, &log_));
  RunAll();
  EXPECT_THAT(log_, ElementsAre(-EBADF, -EBADF, -EBADF, -EINVAL, 0));
}

TEST_P(ProactorTest, ClosingADescriptorEndsTheAwaitsOnIt) {
  SocketPair pair;
  std::string buffer(8, ' ');
  loop_->Spawn(RecvInto(io_, pair.fds[0], Writable(&buffer), {}, &log_));
  loop_->RunOnce(0);
  EXPECT_EQ(loop_->Close(std::exchange(pair.fds[0], -1)), 0);
  RunAll();
  EXPECT_THAT(log_, ElementsAre(-ECANCELED));
  char byte;
  EXPECT_EQ(read(pair.fds[1], &byte, 1), 0) << "the peer sees the end";
}

// --- Callbacks.

struct Server {
  AcceptOp accept;
  RecvOp recv;
  SendOp send;
  ShutdownOp shutdown;
  CloseOp close;
  Proactor io;
  int fd = -1;
  std::byte buffer[32];
  std::vector<int64_t> log;

  explicit Server(Proactor p) : io(p) {}
};

Server* current = nullptr;  // the operations are members: one server a test

void OnClose(Loop*, Operation*, const Entry& e) {
  current->log.push_back(e.result);
}
void OnShutdown(Loop*, Operation*, const Entry& e) {
  current->log.push_back(e.result);
  EXPECT_EQ(current->io.Close(&current->close, current->fd, OnClose), 0);
}
void OnSend(Loop*, Operation*, const Entry& e) {
  current->log.push_back(e.result);
  EXPECT_EQ(current->io.Shutdown(&current->shutdown, current->fd, SHUT_WR,
                                 OnShutdown),
            0);
}
void OnRecv(Loop*, Operation*, const Entry& e) {
  current->log.push_back(e.result);
  EXPECT_EQ(
      current->io.Send(&current->send, current->fd,
                       std::span<const std::byte>(
                           current->buffer, static_cast<size_t>(e.result)),
                       false, OnSend),
      0);
}
void OnAccept(Loop*, Operation*, const Entry& e) {
  EXPECT_GE(e.result, 0);
  current->fd = static_cast<int>(e.result);
  EXPECT_EQ(
      current->io.Recv(&current->recv, current->fd, current->buffer, OnRecv),
      0);
}

TEST_P(ProactorTest, CallbacksDoWithoutCoroutines) {
  sockaddr_in address;
  int listener = Listen(&address);
  Server server(io_);
  current = &server;
  ASSERT_EQ(io_.Accept(&server.accept, listener, false, OnAccept), 0);
  int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(
      connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address),
      0);
  WriteAll(client, "ping");
  RunUntil(loop_.get(), [&] { return server.log.size() == 4; });
  EXPECT_THAT(server.log, ElementsAre(4, 4, 0, 0));
  char buffer[8];
  EXPECT_EQ(recv(client, buffer, sizeof buffer, MSG_WAITALL), 4);
  close(client);
  loop_->Close(listener);
}

}  // namespace
}  // namespace kevent::loop
