// SPDX-License-Identifier: Apache-2.0
//
// The echo server of ./kev bench vm echo on libevent, in both ways its users
// write one: "bufferevent", the way of its book, where what came is moved from
// the input to the output without a copy, and the library sends it in its next
// turn; and "event", bare events with the user's own recv and send, which costs
// less. Both without locks (one thread), and with the changes of one turn told
// to epoll together.
//
//   echo_libevent PORT bufferevent|event
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <unistd.h>

#include <memory>
#include <string_view>

#include "benchmarks/vm/common.h"

namespace {

using kevent::bench::Die;
using kevent::bench::kEchoBuffer;

void OnBuffer(bufferevent* connection, void*) {
  evbuffer_add_buffer(bufferevent_get_output(connection),
                      bufferevent_get_input(connection));
}

void OnEnd(bufferevent* connection, short, void*) {
  bufferevent_free(connection);
}

void AcceptBuffered(evconnlistener* listener, evutil_socket_t fd, sockaddr*,
                    int, void*) {
  kevent::bench::NoDelay(fd);
  bufferevent* connection = bufferevent_socket_new(
      evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE);
  bufferevent_setcb(connection, OnBuffer, nullptr, OnEnd, nullptr);
  bufferevent_enable(connection, EV_READ | EV_WRITE);
}

struct Connection {
  event* readable = nullptr;
  event* writable = nullptr;  // made when a send was short
  size_t begin = 0, end = 0;  // of what is to be sent
  char buffer[kEchoBuffer];

  ~Connection() {
    close(event_get_fd(readable));
    event_free(readable);
    if (writable != nullptr) event_free(writable);
  }

  // Returns whether all is out; after a fatal error this is no more.
  bool Send();
};

void OnWritable(evutil_socket_t, short, void* argument) {
  auto* c = static_cast<Connection*>(argument);
  if (c->Send()) event_add(c->readable, nullptr);
}

bool Connection::Send() {
  const int fd = event_get_fd(readable);
  const ssize_t n = send(fd, buffer + begin, end - begin, MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN) {
    delete this;
    return false;
  }
  if (n > 0) begin += static_cast<size_t>(n);
  if (begin == end) return true;
  // Reads no more until that is out.
  if (writable == nullptr) {
    writable =
        event_new(event_get_base(readable), fd, EV_WRITE, OnWritable, this);
  }
  event_del(readable);
  event_add(writable, nullptr);
  return false;
}

void OnReadable(evutil_socket_t fd, short, void* argument) {
  auto* c = static_cast<Connection*>(argument);
  const ssize_t n = recv(fd, c->buffer, sizeof c->buffer, 0);
  if (n <= 0) {
    if (n == 0 || errno != EAGAIN) delete c;
    return;
  }
  c->begin = 0;
  c->end = static_cast<size_t>(n);
  c->Send();
}

void AcceptBare(evconnlistener* listener, evutil_socket_t fd, sockaddr*, int,
                void*) {
  kevent::bench::NoDelay(fd);
  auto* c = new Connection;
  c->readable = event_new(evconnlistener_get_base(listener), fd,
                          EV_READ | EV_PERSIST, OnReadable, c);
  event_add(c->readable, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: echo_libevent PORT bufferevent|event\n");
    return 2;
  }
  event_config* config = event_config_new();
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
  event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
  event_base* base = event_base_new_with_config(config);
  if (base == nullptr) Die("event_base");
  const sockaddr_in address =
      kevent::bench::Loopback(static_cast<uint16_t>(atoi(argv[1])));
  const bool bare = std::string_view(argv[2]) == "event";
  evconnlistener* listener = evconnlistener_new_bind(
      base, bare ? AcceptBare : AcceptBuffered, nullptr,
      LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, 1024,
      reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (listener == nullptr) Die("listen");
  event_base_dispatch(base);
}
