// SPDX-License-Identifier: Apache-2.0
#include "server/http/server.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/http/server_fixture.h"
#include "server/http/test_client.h"
#include "server/loop/test_util.h"

namespace kevent::http {
namespace {

std::string Chunk(std::string_view data) {
  char line[32];
  snprintf(line, sizeof line, "%zX\r\n", data.size());
  return line + std::string(data) + "\r\n";
}

// --- Requests and connections.

TEST_P(ServerTest, AnswersWithItsFields) {
  Start();
  TestClient client(port());
  ClientResponse r = client.Get("/hello?a=b");
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.minor, 1);
  EXPECT_EQ(r.body, "/hello?a=b");
  EXPECT_EQ(r.Get("Content-Type"), "text/plain");
  EXPECT_EQ(r.Get("Content-Length"), "10");
  EXPECT_FALSE(r.Has("Connection"));
  EXPECT_EQ(r.Get("Date").size(), 29u);
}

TEST_P(ServerTest, KeepsAlive) {
  Start();
  TestClient client(port());
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(client.Get("/" + std::to_string(i)).body,
              "/" + std::to_string(i));
  }
  EXPECT_EQ(counters().accepted.value(), 1u);
  ExpectCount(counters().requests, 50);
  ExpectCount(counters().by_class[2], 50);
}

TEST_P(ServerTest, HeadHasNoBody) {
  Start();
  TestClient client(port());
  ClientResponse r = client.Head("/12345");
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.Get("Content-Length"), "6");
  // The stream goes on with the next response, not with a body.
  EXPECT_EQ(client.Get("/next").body, "/next");
  EXPECT_EQ(client.Head("/missing").status, 404);
  EXPECT_EQ(client.Get("/next").body, "/next");
}

TEST_P(ServerTest, ConnectionCloseIsHonoured) {
  Start();
  TestClient client(port());
  ClientResponse r = client.Get("/a", "Connection: close\r\n");
  EXPECT_EQ(r.body, "/a");
  EXPECT_EQ(r.Get("Connection"), "close");
  EXPECT_EQ(client.AwaitEnd(), End::kClosed);
  EXPECT_TRUE(server_->AwaitConnections(0));
}

TEST_P(ServerTest, HandlerClosesAfter) {
  Start();
  TestClient client(port());
  ClientResponse r = client.Get("/close");
  EXPECT_EQ(r.body, "closing");
  EXPECT_EQ(r.Get("Connection"), "close");
  EXPECT_EQ(client.AwaitEnd(), End::kClosed);
}

TEST_P(ServerTest, Http10ClosesUnlessAsked) {
  Start();
  {
    TestClient client(port());
    ClientResponse r = client.Ask("GET /old HTTP/1.0\r\n\r\n");
    EXPECT_EQ(r.status, 200);
    EXPECT_EQ(r.body, "/old");
    EXPECT_EQ(r.Get("Connection"), "close");
    EXPECT_EQ(client.AwaitEnd(), End::kClosed);
  }
  TestClient client(port());
  for (int i = 0; i < 3; ++i) {
    ClientResponse r =
        client.Ask("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    EXPECT_EQ(r.body, "/old");
    EXPECT_EQ(r.Get("Connection"), "keep-alive");
  }
  EXPECT_EQ(client.Ask("GET /old HTTP/1.0\r\n\r\n").status, 200);
  EXPECT_EQ(client.AwaitEnd(), End::kClosed);
}

TEST_P(ServerTest, ClientClosesItsSideAfterRequest) {
  Start();
  TestClient client(port());
  ASSERT_TRUE(client.Send(TestClient::Request("GET", "/later")));
  client.CloseWrite();
  ClientResponse r;
  ASSERT_TRUE(client.Receive(&r));
  EXPECT_EQ(r.body, "later");
  EXPECT_EQ(client.AwaitEnd(), End::kClosed);
}

// --- Pipelining and splits.

TEST_P(ServerTest, PipelinesHundredInOneWrite) {
  Start();
  TestClient client(port());
  std::string all;
  for (int i = 0; i < 100; ++i) {
    const bool body = i % 3 == 1;
    // Bodies, handlers that answer later, and plain ones between them.
    std::string text = "body " + std::to_string(i);
    all += body ? TestClient::Request(
                      "POST", "/echo",
                      "Content-Length: " + std::to_string(text.size()) + "\r\n")
                : TestClient::Request(
                      "GET", i % 3 == 2 ? "/later" : "/" + std::to_string(i));
    if (body) all += text;
    client.reader().Expect(false);
  }
  ASSERT_TRUE(client.Send(all));
  for (int i = 0; i < 100; ++i) {
    ClientResponse r;
    ASSERT_TRUE(client.Receive(&r)) << i << client.reader().error();
    EXPECT_EQ(r.status, 200);
    EXPECT_EQ(r.body, i % 3 == 1   ? "body " + std::to_string(i)
                      : i % 3 == 2 ? "later"
                                   : "/" + std::to_string(i));
  }
  ExpectCount(counters().requests, 100);
}

TEST_P(ServerTest, PipelinesHundredByteByByte) {
  Start();
  TestClient client(port());
  std::string all;
  for (int i = 0; i < 100; ++i) {
    all += TestClient::Request("GET", "/" + std::to_string(i));
    client.reader().Expect(false);
  }
  for (char c : all) ASSERT_TRUE(client.Send({&c, 1}));
  for (int i = 0; i < 100; ++i) {
    ClientResponse r;
    ASSERT_TRUE(client.Receive(&r)) << i;
    EXPECT_EQ(r.body, "/" + std::to_string(i));
  }
}

TEST_P(ServerTest, PipelinedResponsesLeaveTogether) {
  Start();
  TestClient client(port());
  std::string all;
  for (int i = 0; i < 16; ++i) {
    all += TestClient::Request("GET", "/" + std::to_string(i));
    client.reader().Expect(false);
  }
  ASSERT_TRUE(client.Send(all));
  for (int i = 0; i < 16; ++i) {
    ClientResponse r;
    ASSERT_TRUE(client.Receive(&r)) << i;
    EXPECT_EQ(r.body, "/" + std::to_string(i));
  }
  tcp_info info = {};
  socklen_t size = sizeof info;
  ASSERT_EQ(0, getsockopt(client.fd(), IPPROTO_TCP, TCP_INFO, &info, &size));
  EXPECT_LE(info.tcpi_data_segs_in, 4u);
}

// What a socket holds back its kernel sends after 200 ms.
TEST_P(ServerTest, AResponseDoesNotWaitForTheNext) {
  Start();
  TestClient client(port());
  ClientResponse r;
  int64_t slow_handler_ms = INT64_MAX;
  int64_t slow_client_ms = INT64_MAX;
  const auto first_of_two = [&](const std::string& second, int64_t* least_ms) {
    client.reader().Expect(false);
    client.reader().Expect(false);
    const auto start = Clock::now();
    ASSERT_TRUE(client.Send(TestClient::Request("GET", "/first") + second));
    ASSERT_TRUE(client.Receive(&r));
    *least_ms = std::min(*least_ms, MsSince(start));
    EXPECT_EQ(r.body, "/first");
  };
  for (int i = 0; i < 10; ++i) {
    first_of_two(TestClient::Request("GET", "/hold"), &slow_handler_ms);
    EXPECT_TRUE(server_->Await([&] { return shared_.handled == 4 * i + 2; }));
    server_->Call([&] { shared_.held.back()->Reply(200, "text/plain", "x"); });
    ASSERT_TRUE(client.Receive(&r));
    EXPECT_EQ(r.body, "x");

    first_of_two(TestClient::Request("POST", "/echo", "Content-Length: 4\r\n"),
                 &slow_client_ms);
    ASSERT_TRUE(client.Send("body"));
    ASSERT_TRUE(client.Receive(&r));
    EXPECT_EQ(r.body, "body");
  }
  EXPECT_LT(slow_handler_ms, 150);
  EXPECT_LT(slow_client_ms, 150);
}

// To close with unread input drops what has not left.
TEST_P(ServerTest, AResponseIsNotLostWithTheNext) {
  const HttpServer::Options options;
  Start(options);
  UseFile(0, /*promised=*/20);
  TestClient client(port());
  std::string all = TestClient::Request("GET", "/first");
  all += TestClient::Request("GET", "/file");
  // What is received at once ends with a request, and is not all there is.
  const std::string unread = TestClient::Request("GET", "/unread");
  all += TestClient::Request(
      "GET", '/' + std::string(options.buffer_bytes - all.size() -
                                   TestClient::Request("GET", "/").size(),
                               'x'));
  ASSERT_EQ(options.buffer_bytes, all.size());
  while (all.size() < 60'000) all += unread;
  client.reader().Expect(false);
  client.reader().Expect(false);
  ASSERT_TRUE(client.Send(all));
  ClientResponse r;
  ASSERT_TRUE(client.Receive(&r));
  EXPECT_EQ(r.body, "/first");
  EXPECT_FALSE(client.Receive(&r));
}

TEST_P(ServerTest, RequestSplitAtEveryPosition) {
  Start();
  TestClient client(port());
  const std::string request =
      TestClient::Request("POST", "/echo", "Transfer-Encoding: chunked\r\n") +
      "4;a=\"b\"\r\nabcd\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n" +
      TestClient::Request("GET", "/next");
  for (size_t i = 1; i < request.size(); ++i) {
    client.reader().Expect(false);
    client.reader().Expect(false);
    ASSERT_TRUE(client.Send(request.substr(0, i)));
    Settle();
    ASSERT_TRUE(client.Send(request.substr(i)));
    ClientResponse r;
    ASSERT_TRUE(client.Receive(&r)) << "split at " << i;
    EXPECT_EQ(r.status, 200);
    EXPECT_EQ(r.body, "abcd0123456789abcdef");
    ASSERT_TRUE(client.Receive(&r)) << "split at " << i;
    EXPECT_EQ(r.body, "/next");
  }
  EXPECT_EQ(counters().accepted.value(), 1u);
}

// The head spans more than one input buffer, and the buffers are few.
TEST_P(ServerTest, LongHeadsFromManyClientsWithFewBuffers) {
  HttpServer::Options options;
  options.buffers = 4;
  options.buffer_bytes = 256;
  Start(options);
  const std::string fields = "X-Long: " + std::string(9000, 'l') + "\r\n";
  int answered = 0;
  int asked = 0;
  std::string error = RunLoad(
      port(), 32, 2,
      [&](LoadRequest* next) {
        next->text = TestClient::Request("GET", "/x", fields);
        return asked++ < 500;
      },
      [&](size_t, const ClientResponse& r) {
        EXPECT_EQ(r.body, "/x");
        ++answered;
      });
  EXPECT_EQ(error, "");
  EXPECT_EQ(answered, 500);
}

// Pieces of requests reach the server while it answers others, some of them
// later, with input buffers far smaller than what comes.
TEST_P(ServerTest, WhatComesEarlyWaitsItsTurn) {
  HttpServer::Options options;
  options.buffers = 8;
  options.buffer_bytes = 512;
  Start(options);
  std::mt19937_64 random(loop::TestSeed());
  for (int round = 0; round < 20; ++round) {
    TestClient client(port());
    std::string all;
    std::vector<std::string> bodies;
    while (all.size() < 100'000) {
      const std::string n = std::to_string(bodies.size());
      const std::string fields =
          "X-Long: " + std::string(random() % 3 ? 9 : random() % 5000, 'l') +
          "\r\n";
      const std::string body = n + Pattern(random() % 3000);
      switch (random() % 5) {
        case 0:
          all += TestClient::Request("GET", "/" + n, fields);
          bodies.push_back("/" + n);
          break;
        case 1:
          all += TestClient::Request("GET", "/later", fields);
          bodies.push_back("later");
          break;
        case 2:
          all += TestClient::Request("GET", "/hold", fields);
          bodies.push_back("held");
          break;
        case 3:
          all += TestClient::Request("POST", "/echo",
                                     fields + "Content-Length: " +
                                         std::to_string(body.size()) + "\r\n") +
                 body;
          bodies.push_back(body);
          break;
        default: {
          const bool hold = random() % 2;
          all +=
              TestClient::Request("POST", hold ? "/hold" : "/echo",
                                  fields + "Transfer-Encoding: chunked\r\n") +
              Chunk(body) + "0\r\n\r\n";
          bodies.push_back(hold ? "held" : body);
        }
      }
      client.reader().Expect(false);
    }
    const auto answer = [&] {
      server_->Call([&] {
        // An answer may be followed by the next to be held.
        for (Exchange* x : std::exchange(shared_.held, {})) {
          x->Reply(200, "text/plain", "held");
        }
      });
    };
    for (size_t at = 0; at < all.size();) {
      const size_t size = std::min(1 + random() % (random() % 2 ? 100 : 10'000),
                                   all.size() - at);
      ASSERT_TRUE(client.Send(std::string_view(all).substr(at, size)));
      at += size;
      if (random() % 2) Settle();
      if (random() % 3 == 0) answer();
    }
    std::jthread answering([&](std::stop_token stop) {
      while (!stop.stop_requested()) answer();
    });
    for (size_t i = 0; i < bodies.size(); ++i) {
      ClientResponse r;
      ASSERT_TRUE(client.Receive(&r)) << i << client.reader().error();
      EXPECT_EQ(r.status, 200);
      ASSERT_EQ(r.body, bodies[i]) << i;
    }
  }
}

// Closing a socket with something unread in it would drop what is yet to be
// sent.
TEST_P(ServerTest, TheLastResponseArrivesWhateverComesBehindItsRequest) {
  Start();
  TestClient client(port());
  client.reader().Expect(false);
  ASSERT_TRUE(client.Send(
      TestClient::Request("GET", "/hold", "Connection: close\r\n")));
  ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
  ASSERT_TRUE(client.Send("and more"));
  int unsent = 1;
  while (unsent > 0) ASSERT_EQ(ioctl(client.fd(), SIOCOUTQ, &unsent), 0);
  server_->Call([&] {
    std::exchange(shared_.held, {})[0]->Reply(200, "text/plain", "held");
  });
  ClientResponse r;
  ASSERT_TRUE(client.Receive(&r)) << client.reader().error();
  EXPECT_EQ(r.body, "held");
  EXPECT_EQ(client.AwaitEnd(), TestClient::End::kClosed);
}

// A client that goes on sending while its request is answered does not fill the
// server's memory, and what it sent is answered in the end.
TEST_P(ServerTest, AFloodBehindAHeldRequestStaysInTheSocket) {
  constexpr size_t kFlood = 64 << 20;
  Start();
  TestClient client(port());
  client.reader().Expect(false);
  ASSERT_TRUE(client.Send(TestClient::Request("GET", "/hold")));
  ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
  const std::string request = TestClient::Request(
      "GET", "/x", "X-Long: " + std::string(14'000, 'l') + "\r\n");
  size_t sent = 0;
  pollfd room = {client.fd(), POLLOUT, 0};
  while (sent < kFlood && poll(&room, 1, 200) == 1) {
    const size_t at = sent % request.size();
    const ssize_t n = send(client.fd(), request.data() + at,
                           request.size() - at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) sent += static_cast<size_t>(n);
  }
  EXPECT_LT(sent, kFlood);
  ExpectAlive();
  const size_t count = sent / request.size();
  for (size_t i = 0; i < count; ++i) client.reader().Expect(false);
  server_->Call([&] {
    shared_.held[0]->Reply(200, "text/plain", "held");
    shared_.held.clear();
  });
  for (size_t i = 0; i <= count; ++i) {
    ClientResponse r;
    ASSERT_TRUE(client.Receive(&r)) << i << client.reader().error();
    EXPECT_EQ(r.body, i == 0 ? "held" : "/x");
  }
}

// --- Bodies.

TEST_P(ServerTest, ReadsBodies) {
  Start();
  TestClient client(port());
  for (size_t size :
       {size_t{0}, size_t{1}, size_t{4096}, size_t{100'000}, kEchoLimit}) {
    std::string body = Pattern(size);
    ClientResponse r =
        client.Ask(TestClient::Request(
                       "POST", "/echo",
                       "Content-Length: " + std::to_string(size) + "\r\n") +
                   body);
    EXPECT_EQ(r.status, 200);
    EXPECT_EQ(r.body, body) << size;
  }
  std::string chunked;
  std::string whole;
  for (size_t size = 1; size < 20'000; size = size * 3 + 1) {
    chunked += Chunk(Pattern(size));
    whole += Pattern(size);
  }
  ClientResponse r = client.Ask(
      TestClient::Request("POST", "/echo", "Transfer-Encoding: chunked\r\n") +
      chunked + "0\r\n\r\n");
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.body, whole);
  EXPECT_EQ(client.Get("/end").body, "/end");
}

TEST_P(ServerTest, BodyOneByteTooLargeIs413) {
  Start();
  {
    TestClient client(port());
    ClientResponse r = client.Ask(TestClient::Request(
        "POST", "/echo",
        "Content-Length: " + std::to_string(kEchoLimit + 1) + "\r\n"));
    EXPECT_EQ(r.status, 413);
    EXPECT_EQ(r.Get("Connection"), "close");
    EXPECT_EQ(client.AwaitEnd(), End::kClosed);
  }
  TestClient client(port());
  char line[32];
  snprintf(line, sizeof line, "%zx\r\n", kEchoLimit + 1);
  ClientResponse r = client.Ask(
      TestClient::Request("POST", "/echo", "Transfer-Encoding: chunked\r\n") +
      line + std::string(kEchoLimit + 1, 'b') + "\r\n0\r\n\r\n");
  EXPECT_EQ(r.status, 413);
  EXPECT_EQ(client.AwaitEnd(), End::kClosed);
}

TEST_P(ServerTest, MalformedBodyIs400) {
  Start();
  TestClient client(port());
  ClientResponse r = client.Ask(
      TestClient::Request("POST", "/echo", "Transfer-Encoding: chunked\r\n") +
      "zz\r\n");
  EXPECT_EQ(r.status, 400);
  EXPECT_EQ(r.Get("Connection"), "close");
  EXPECT_EQ(client.AwaitEnd(), End::kClosed);
}

TEST_P(ServerTest, UnreadBodyIsSkipped) {
  Start();
  TestClient client(port());
  for (const std::string& body :
       {std::string("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        Pattern(200'000)}) {
    ClientResponse r = client.Ask(
        TestClient::Request(
            "POST", "/ignored",
            "Content-Length: " + std::to_string(body.size()) + "\r\n") +
        body);
    EXPECT_EQ(r.body, "/ignored");
    EXPECT_EQ(client.Get("/next").body, "/next");
  }
  ClientResponse r =
      client.Ask(TestClient::Request("POST", "/ignored",
                                     "Transfer-Encoding: chunked\r\n") +
                 "5\r\nhello\r\n0\r\n\r\n");
  EXPECT_EQ(r.body, "/ignored");
  EXPECT_EQ(client.Get("/next").body, "/next");
  EXPECT_EQ(shared_.handled.load(), 6);
}

TEST_P(ServerTest, HugeUnreadBodyClosesTheConnection) {
  Start();
  TestClient client(port());
  ASSERT_TRUE(client.Send(TestClient::Request(
      "POST", "/ignored", "Content-Length: 1000000000\r\n")));
  ClientResponse r;
  ASSERT_TRUE(client.Receive(&r));
  EXPECT_EQ(r.body, "/ignored");
  // It will not be read, so the client is told.
  EXPECT_EQ(r.Get("Connection"), "close");
  EXPECT_EQ(client.AwaitEnd(), End::kClosed);
  EXPECT_EQ(shared_.handled.load(), 1);
}

// Chunked: nobody knows that it is huge until it has come.
TEST_P(ServerTest, HugeUnreadChunkedBodyClosesTheConnection) {
  HttpServer::Options options;
  options.linger_ns = 200 * kMs;
  Start(options);
  TestClient client(port());
  ASSERT_TRUE(client.Send(TestClient::Request(
      "POST", "/ignored", "Transfer-Encoding: chunked\r\n")));
  ClientResponse r;
  ASSERT_TRUE(client.Receive(&r));
  EXPECT_EQ(r.body, "/ignored");
  const std::string chunk = "10000\r\n" + std::string(0x10000, 'c') + "\r\n";
  bool ended = false;
  for (int i = 0; i < 100'000 && !ended; ++i) {
    ended = !client.Send(chunk) || client.Readable(0);
  }
  EXPECT_TRUE(ended);
  EXPECT_TRUE(server_->AwaitConnections(0));
  EXPECT_EQ(shared_.handled.load(), 1);
}

TEST_P(ServerTest, ExpectContinue) {
  Start();
  TestClient client(port());
  const std::string fields = "Content-Length: 4\r\nExpect: 100-continue\r\n";
  ASSERT_TRUE(client.Send(TestClient::Request("POST", "/echo", fields)));
  ClientResponse r;
  ASSERT_TRUE(client.Receive(&r));
  EXPECT_EQ(r.status, 100);
  ASSERT_TRUE(client.Send("body"));
  ASSERT_TRUE(client.Receive(&r));
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.body, "body");
  EXPECT_FALSE(r.Has("Connection"));
  // One that does not wait.
  r = client.Ask(TestClient::Request("POST", "/echo", fields) + "tall");
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.body, "tall");
  EXPECT_EQ(client.Get("/next").body, "/next");
}

TEST_P(ServerTest, ExpectContinueRefused) {
  Start();
  for (const char* target : {"/ignored", "/echo"}) {
    TestClient client(port());
    ClientResponse r = client.Ask(TestClient::Request(
        "POST", target, "Content-Length: 9999999\r\nExpect: 100-continue\r\n"));
    EXPECT_EQ(r.status, target == std::string("/echo") ? 413 : 200);
    // Whether a body follows nobody knows.
    EXPECT_EQ(r.Get("Connection"), "close");
    EXPECT_EQ(client.AwaitEnd(), End::kClosed);
  }
}

// --- Errors.

struct BadRequest {
  const char* what;
  std::string text;
  int status;
};

std::vector<BadRequest> BadRequests() {
  return {
      {"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"no host", "GET / HTTP/1.1\r\n\r\n", 400},
      {"a bare LF", "GET / HTTP/1.1\nHost: a\n\n", 400},
      {"both lengths",
       "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
       "Transfer-Encoding: chunked\r\n\r\n",
       400},
      {"a TLS hello",
       std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11), 400},
      {"a long target",
       "GET /" + std::string(9000, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
      {"a long head",
       "GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(20'000, 'a') +
           "\r\n\r\n",
       431},
      {"many fields",
       [] {
         std::string text = "GET / HTTP/1.1\r\nHost: a\r\n";
         for (int i = 0; i < 120; ++i) text += "a: b\r\n";
         return text + "\r\n";
       }(),
       431},
      {"an unknown coding",
       "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
       501},
      {"another version", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
  };
}

TEST_P(ServerTest, RefusesBadRequests) {
  Start();
  for (const BadRequest& bad : BadRequests()) {
    SCOPED_TRACE(bad.what);
    TestClient client(port());
    ClientResponse r = client.Ask(bad.text);
    EXPECT_EQ(r.status, bad.status);
    EXPECT_EQ(r.Get("Connection"), "close");
    EXPECT_EQ(r.Get("Date").size(), 29u);
    EXPECT_NE(r.body.find(std::to_string(bad.status)), std::string::npos);
    EXPECT_EQ(client.AwaitEnd(), End::kClosed);
  }
  EXPECT_EQ(shared_.handled.load(), 0);
  ExpectAlive();
}

// A request behind a bad one is not looked at.
TEST_P(ServerTest, NothingAfterABadRequest) {
  Start();
  TestClient client(port());
  client.reader().Expect(false);
  client.reader().Expect(false);
  ASSERT_TRUE(client.Send(TestClient::Request("GET", "/good") +
                          "GET / HTTP/1.1\r\nHost : a\r\n\r\n" +
                          TestClient::Request("GET", "/smuggled")));
  ClientResponse r;
  ASSERT_TRUE(client.Receive(&r));
  EXPECT_EQ(r.body, "/good");
  ASSERT_TRUE(client.Receive(&r));
  EXPECT_EQ(r.status, 400);
  EXPECT_EQ(client.AwaitEnd(), End::kClosed);
  EXPECT_EQ(shared_.handled.load(), 1);
}

// Closing at once would answer the client's bytes with a reset, which takes the
// response away from it.
TEST_P(ServerTest, ClientThatKeepsSendingGetsTheWholeError) {
  Start();
  const std::string more(64 << 10, 'm');
  for (const BadRequest& bad : BadRequests()) {
    SCOPED_TRACE(bad.what);
    TestClient client(port());
    ASSERT_TRUE(client.Send(bad.text));
    for (int i = 0; i < 64; ++i) ASSERT_TRUE(client.Send(more));
    ClientResponse r;
    ASSERT_TRUE(client.Receive(&r));
    EXPECT_EQ(r.status, bad.status);
    EXPECT_EQ(client.AwaitEnd(), End::kClosed);
    ASSERT_TRUE(client.Send(more));
    client.CloseWrite();
    EXPECT_TRUE(server_->AwaitConnections(0));
  }
}

TEST_P(ServerTest, LingeringHasAnEnd) {
  HttpServer::Options options;
  options.linger_ns = 200 * kMs;
  Start(options);
  TestClient client(port());
  auto start = Clock::now();
  EXPECT_EQ(client.Ask("nonsense\r\n\r\n").status, 400);
  // However much it sends: the time is counted from the response.
  while (client.Send("more") && MsSince(start) < kClientDeadlineMs) {
    client.Readable(10);
    bool gone = false;
    server_->Call([&] { gone = server_->server()->connections() == 0; });
    if (gone) break;
  }
  EXPECT_GE(MsSince(start), 200);
  EXPECT_LT(MsSince(start), 10'000);
  EXPECT_EQ(server_->connections(), 0u);
}

TEST_P(ServerTest, ErrorsOfHandlersKeepTheConnection) {
  Start();
  TestClient client(port());
  ClientResponse r = client.Get("/missing");
  EXPECT_EQ(r.status, 404);
  EXPECT_EQ(r.Get("X-Extra"), "1");
  EXPECT_EQ(r.Get("Content-Type"), "text/html");
  EXPECT_EQ(client.Get("/next").body, "/next");
  ExpectCount(counters().by_class[4], 1);
}

// --- Responses.

TEST_P(ServerTest, Redirects) {
  Start();
  TestClient client(port());
  ClientResponse r = client.Get("/redirect");
  EXPECT_EQ(r.status, 307);
  EXPECT_EQ(r.Get("Location"), "/echo?x=1");
  EXPECT_EQ(r.body, "");
  // A location that would split the message.
  r = client.Get("/split");
  EXPECT_EQ(r.status, 500);
  EXPECT_FALSE(r.Has("Set-Cookie"));
  EXPECT_EQ(client.Get("/next").body, "/next");
}

TEST_P(ServerTest, RespondsLater) {
  Start();
  TestClient client(port());
  for (int i = 0; i < 20; ++i) EXPECT_EQ(client.Get("/later").body, "later");
}

TEST_P(ServerTest, HeldExchangesAreAnsweredInAnyOrder) {
  Start();
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(std::make_unique<TestClient>(port()));
    ASSERT_TRUE(clients[i]->Send(TestClient::Request("GET", "/hold")));
    ASSERT_TRUE(server_->Await(
        [&] { return shared_.held.size() == static_cast<size_t>(i) + 1; }));
  }
  server_->Call([&] {
    for (size_t i = shared_.held.size(); i-- > 0;) {
      shared_.held[i]->Reply(200, "text/plain", std::to_string(i));
    }
    shared_.held.clear();
  });
  for (int i = 0; i < 10; ++i) {
    ClientResponse r;
    ASSERT_TRUE(clients[i]->Receive(&r));
    EXPECT_EQ(r.body, std::to_string(i));
  }
}

TEST_P(ServerTest, ClientGoneBeforeTheHandlerAnswers) {
  Start();
  {
    TestClient client(port());
    ASSERT_TRUE(client.Send(TestClient::Request("GET", "/hold")));
    ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
    client.Reset();
  }
  server_->Call([&] {
    Exchange* x = shared_.held[0];
    EXPECT_EQ(x->request().path, "/hold");
    x->Reply(200, "text/plain", std::string(1 << 20, 'x'));
    shared_.held.clear();
  });
  EXPECT_TRUE(server_->AwaitConnections(0));
  ExpectAlive();
}

TEST_P(ServerTest, CloseAllWaitsForTheHandler) {
  Start();
  UseFile(1000);
  TestClient client(port());
  ASSERT_TRUE(client.Send(TestClient::Request("GET", "/hold")));
  ASSERT_TRUE(server_->Await([&] { return shared_.held.size() == 1; }));
  server_->Call([&] { server_->server()->CloseAll(); });
  EXPECT_TRUE(client.AwaitReset());
  EXPECT_EQ(server_->connections(), 1u);  // the exchange is still lent
  server_->Call([&] { SendFile(shared_.held[0]); });
  EXPECT_EQ(shared_.released.load(), 1);
  EXPECT_TRUE(server_->AwaitConnections(0));
}

TEST_P(ServerTest, RespondsWithFiles) {
  Start();
  constexpr size_t kSize = 3'000'001;
  UseFile(kSize);
  const std::string expected = Pattern(kSize);
  TestClient client(port());
  for (int i = 0; i < 5; ++i) {
    ClientResponse r = client.Get("/file");
    EXPECT_EQ(r.status, 200);
    EXPECT_TRUE(r.body == expected);
  }
  EXPECT_TRUE(server_->Await([&] { return shared_.released.load() == 5; }));
}

// It must not look whole to the client.
TEST_P(ServerTest, FileShorterThanPromisedEndsTheConnection) {
  Start();
  UseFile(1000, 2000);
  TestClient client(port());
  ClientResponse r = client.Get("/file");
  EXPECT_EQ(r.status, 0);
  EXPECT_EQ(client.reader().partial().status, 200);
  EXPECT_EQ(client.reader().partial().body, Pattern(1000));
  EXPECT_TRUE(server_->AwaitConnections(0));
  EXPECT_EQ(shared_.released.load(), 1);
  ExpectCount(counters().aborted, 1);
}

TEST_P(ServerTest, LogsEachResponse) {
  Start();
  struct Line {
    std::string method, target;
    int status;
    uint64_t bytes;
  };
  std::vector<Line> lines;
  server_->Call([&] {
    server_->server()->SetLog([&](const LogRecord& r) {
      EXPECT_GE(r.fd, 0);
      EXPECT_GE(r.duration_ns, 0);
      lines.push_back(
          {std::string(r.method), std::string(r.target), r.status, r.bytes});
    });
  });
  TestClient client(port());
  client.Get("/a?b");
  client.Head("/missing");
  client.Ask("BREW /pot HTTP/3.0\r\n\r\n");
  std::vector<Line> seen;
  ASSERT_TRUE(server_->Await([&] { return lines.size() == 3; }));
  server_->Call([&] {
    seen = lines;
    server_->server()->SetLog(nullptr);
  });
  EXPECT_EQ(seen[0].method, "GET");
  EXPECT_EQ(seen[0].target, "/a?b");
  EXPECT_EQ(seen[0].status, 200);
  EXPECT_GT(seen[0].bytes, 4u);
  EXPECT_EQ(seen[1].method, "HEAD");
  EXPECT_EQ(seen[1].status, 404);
  EXPECT_EQ(seen[2].method, "BREW");
  EXPECT_EQ(seen[2].status, 505);
}

// Of the turn in which it answers, too.
TEST_P(ServerTest, LogsTheTimeThatAHandlerTakes) {
  Start();
  constexpr auto kWork = std::chrono::milliseconds(20);
  std::atomic<int64_t> duration_ns = -1;
  server_->Call([&] {
    server_->server()->SetLog(
        [&](const LogRecord& r) { duration_ns = r.duration_ns; });
  });
  TestClient client(port());
  ASSERT_TRUE(client.Send(TestClient::Request("GET", "/hold")));
  ASSERT_TRUE(server_->Await([&] { return !shared_.held.empty(); }));
  server_->Call([&] {
    const auto end = std::chrono::steady_clock::now() + kWork;
    while (std::chrono::steady_clock::now() < end) {
    }
    shared_.held.front()->Reply(200, "text/plain", "done");
    shared_.held.clear();
  });
  ASSERT_TRUE(server_->Await([&] { return duration_ns >= 0; }));
  EXPECT_GE(duration_ns, std::chrono::nanoseconds(kWork).count());
  server_->Call([&] { server_->server()->SetLog(nullptr); });
}

INSTANTIATE_FOR_ENGINES(ServerTest);

}  // namespace
}  // namespace kevent::http
