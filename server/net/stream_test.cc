// SPDX-License-Identifier: Apache-2.0
#include "server/net/stream.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/loop/test_util.h"
#include "server/net/listener.h"

namespace kevent::net {
namespace {

using loop::Bytes;
using loop::CancelSource;
using loop::Loop;
using loop::Proactor;
using loop::RunUntil;
using loop::Task;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kMs = 1000000;

class StreamTest : public testing::TestWithParam<EngineKind> {
 protected:
  StreamTest()
      : listener_(*Listener::Listen(*Address::Parse("127.0.0.1:0"), {})) {}

  void RunAll() {
    RunUntil(loop_.get(), [&] { return loop_->tasks() == 0; });
  }

  // A connected pair.
  void Connect(Stream* client, Stream* server) {
    loop_->Spawn([](Loop* loop, Address to, Stream* out) -> Task<void> {
      absl::StatusOr<Stream> stream = co_await Stream::Connect(loop, to);
      EXPECT_TRUE(stream.ok()) << stream.status();
      if (stream.ok()) *out = *std::move(stream);
    }(loop_.get(), listener_.address(), client));
    loop_->Spawn([](Loop* loop, int fd, Stream* out) -> Task<void> {
      int64_t accepted = co_await Proactor(loop).Accept(fd);
      EXPECT_GE(accepted, 0);
      *out = Stream(loop, static_cast<int>(accepted));
    }(loop_.get(), listener_.fd(), server));
    RunAll();
  }

  Listener listener_;
  std::unique_ptr<Loop> loop_ = loop::MakeLoop(GetParam());
  std::vector<int64_t> log_;
};

INSTANTIATE_FOR_ENGINES(StreamTest);

TEST_P(StreamTest, CarriesDataBothWays) {
  Stream client;
  Stream server;
  Connect(&client, &server);
  EXPECT_EQ(client.peer(), listener_.address());
  EXPECT_TRUE(client.is_open());
  loop_->Spawn([](Stream* s, std::vector<int64_t>* log) -> Task<void> {
    log->push_back(co_await s->Write(Bytes("hel"), true));
    log->push_back(co_await s->Write(Bytes("lo")));
    std::byte reply[16];
    log->push_back(co_await s->ReadFull(reply));
    log->push_back(static_cast<int64_t>(reply[4]));
    log->push_back(co_await s->Read(reply));
    s->Close();
  }(&client, &log_));
  loop_->Spawn([](Stream* s) -> Task<void> {
    std::byte text[5];
    EXPECT_EQ(co_await s->ReadFull(text), 5);
    EXPECT_EQ(static_cast<char>(text[4]), 'o');
    std::string a = "12";
    std::string b = "345";
    iovec pieces[2] = {{a.data(), a.size()}, {b.data(), b.size()}};
    EXPECT_EQ(co_await s->Write(std::span<const iovec>(pieces)), 5);
    EXPECT_EQ(co_await s->Shutdown(SHUT_WR), 0);
    EXPECT_EQ(co_await s->Read(text), 0);
  }(&server));
  RunAll();
  EXPECT_THAT(log_, ElementsAre(3, 2, 5, '5', 0));
  EXPECT_FALSE(client.is_open());
}

TEST_P(StreamTest, SendsFiles) {
  Stream client;
  Stream server;
  Connect(&client, &server);
  int file = memfd_create("stream_test", MFD_CLOEXEC);
  loop::WriteAll(file, std::string(100000, 'f'));
  loop_->Spawn([](Stream* s, int from) -> Task<void> {
    EXPECT_EQ(co_await s->SendFile(Bytes("<"), from, 10, 90000, Bytes(">")),
              90002);
    s->Close();
  }(&server, file));
  std::string got(90002, ' ');
  loop_->Spawn([](Stream* s, std::string* into,
                  std::vector<int64_t>* log) -> Task<void> {
    log->push_back(co_await s->ReadFull(
        std::as_writable_bytes(std::span(into->data(), into->size()))));
  }(&client, &got, &log_));
  RunAll();
  close(file);
  EXPECT_THAT(log_, ElementsAre(90002));
  EXPECT_EQ(got, "<" + std::string(90000, 'f') + ">");
}

TEST_P(StreamTest, ItsDeadlineHoldsForEveryAwait) {
  Stream client;
  Stream server;
  Connect(&client, &server);
  loop_->UpdateNow();
  client.SetTimeout(2 * kMs);
  loop_->Spawn([](Stream* s, std::vector<int64_t>* log) -> Task<void> {
    std::byte buffer[4];
    log->push_back(co_await s->ReadFull(buffer));
    log->push_back(co_await s->Write(Bytes("late")));
    s->SetDeadline(loop::kNoDeadline);
    log->push_back(co_await s->Write(Bytes("lifted")));
  }(&client, &log_));
  RunAll();
  EXPECT_THAT(log_, ElementsAre(-ETIMEDOUT, -ETIMEDOUT, 6));
}

TEST_P(StreamTest, ATokenCancelsIt) {
  Stream client;
  Stream server;
  Connect(&client, &server);
  CancelSource source;
  server.SetCancel(source.token());
  loop_->Spawn([](Stream* s, std::vector<int64_t>* log) -> Task<void> {
    std::byte buffer[4];
    log->push_back(co_await s->Read(buffer));
  }(&server, &log_));
  loop_->RunOnce(0);
  source.Cancel();
  RunAll();
  EXPECT_THAT(log_, ElementsAre(-ECANCELED));
}

TEST_P(StreamTest, MayBeClosedWhileItReads) {
  Stream client;
  Stream server;
  Connect(&client, &server);
  loop_->Spawn([](Stream* s, std::vector<int64_t>* log) -> Task<void> {
    std::byte buffer[4];
    log->push_back(co_await s->Read(buffer));
  }(&server, &log_));
  loop_->Spawn([](Stream* s, std::vector<int64_t>* log) -> Task<void> {
    std::byte buffer[4];
    log->push_back(co_await s->Read(buffer));
  }(&client, &log_));
  loop_->RunOnce(0);
  server.Close();
  RunAll();
  EXPECT_THAT(log_, testing::UnorderedElementsAre(-ECANCELED, 0));
}

TEST_P(StreamTest, ResetTellsThePeer) {
  Stream client;
  Stream server;
  Connect(&client, &server);
  loop_->Spawn([](Stream* s, std::vector<int64_t>* log) -> Task<void> {
    std::byte buffer[4];
    log->push_back(co_await s->Read(buffer));
  }(&client, &log_));
  loop_->RunOnce(0);
  server.Reset();
  RunAll();
  EXPECT_THAT(log_, ElementsAre(-ECONNRESET));
}

TEST_P(StreamTest, MovesAndReleases) {
  Stream client;
  Stream server;
  Connect(&client, &server);
  int fd = client.fd();
  Stream moved = std::move(client);
  EXPECT_FALSE(client.is_open());  // NOLINT: moved from
  EXPECT_EQ(moved.fd(), fd);
  server = std::move(moved);  // closes its own
  char byte;
  EXPECT_EQ(recv(server.fd(), &byte, 1, 0), 0);
  EXPECT_EQ(server.Release(), fd);
  server.Close();
  EXPECT_EQ(close(fd), 0);
}

TEST_P(StreamTest, ConnectErrorsNameTheAddress) {
  Address gone = listener_.address();
  listener_.Close();
  std::vector<std::string> errors;
  loop_->Spawn([](Loop* loop, Address to,
                  std::vector<std::string>* out) -> Task<void> {
    for (const Address& address :
         {to, Address(), *Address::Parse("unix:/no/such/socket")}) {
      absl::StatusOr<Stream> stream = co_await Stream::Connect(loop, address);
      EXPECT_FALSE(stream.ok());
      out->push_back(std::string(stream.status().message()));
    }
    loop::AwaitOptions options;
    options.deadline_ns = 0;
    out->push_back(std::string(
        (co_await Stream::Connect(loop, to, options)).status().message()));
  }(loop_.get(), gone, &errors));
  RunAll();
  EXPECT_THAT(
      errors,
      ElementsAre(
          "cannot connect to " + gone.ToString() + ": Connection refused",
          HasSubstr("empty address"),
          "cannot connect to unix:/no/such/socket: No such file or "
          "directory",
          HasSubstr("timed out")));
}

TEST_P(StreamTest, GoesWithTheLoop) {
  Stream client;
  Stream server;
  Connect(&client, &server);
  loop_->Spawn([](Stream own) -> Task<void> {
    std::byte buffer[4];
    co_await own.Read(buffer);
  }(std::move(server)));
  loop_->RunOnce(0);
  int fd = client.Release();
  loop_.reset();
  char byte;
  EXPECT_EQ(recv(fd, &byte, 1, 0), 0) << "the frame closed its stream";
  close(fd);
}

}  // namespace
}  // namespace kevent::net
