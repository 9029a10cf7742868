// SPDX-License-Identifier: Apache-2.0
//
// The echo server of ./kev bench vm echo on Asio, as its own examples write it
// (async_read_some, then async_write), with what its manual advises for one
// thread: a concurrency hint, which leaves locks out, and the type of executor
// known at compile time. Handlers are lambdas, whose memory Asio recycles.
//
//   echo_asio PORT
#include <asio/buffer.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/write.hpp>
#include <memory>
#include <system_error>
#include <utility>

#include "benchmarks/vm/common.h"

namespace {

using Executor = asio::io_context::executor_type;
using Socket = asio::basic_stream_socket<asio::ip::tcp, Executor>;
using Acceptor = asio::basic_socket_acceptor<asio::ip::tcp, Executor>;

class Session {
 public:
  explicit Session(Socket socket) : socket_(std::move(socket)) {
    socket_.set_option(asio::ip::tcp::no_delay(true));
  }

  // Owns itself: ends with its connection.
  static void Read(std::unique_ptr<Session> session) {
    Session* s = session.get();
    s->socket_.async_read_some(asio::buffer(s->buffer_),
                               [session = std::move(session)](
                                   std::error_code error, size_t n) mutable {
                                 if (!error) Write(std::move(session), n);
                               });
  }

 private:
  static void Write(std::unique_ptr<Session> session, size_t n) {
    Session* s = session.get();
    asio::async_write(
        s->socket_, asio::buffer(s->buffer_, n),
        [session = std::move(session)](std::error_code error, size_t) mutable {
          if (!error) Read(std::move(session));
        });
  }

  Socket socket_;
  char buffer_[kevent::bench::kEchoBuffer];
};

void Accept(Acceptor* acceptor) {
  acceptor->async_accept([acceptor](std::error_code error, Socket socket) {
    if (!error) Session::Read(std::make_unique<Session>(std::move(socket)));
    Accept(acceptor);
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: echo_asio PORT\n");
    return 2;
  }
  asio::io_context context(1);
  const auto port = static_cast<asio::ip::port_type>(atoi(argv[1]));
  Acceptor acceptor(
      context, asio::ip::tcp::endpoint(asio::ip::address_v4::loopback(), port));
  Accept(&acceptor);
  context.run();
}
