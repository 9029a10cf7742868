// SPDX-License-Identifier: Apache-2.0
// A TCP service in coroutines: sends back what it gets, for at most a minute of
// silence. Try: nc 127.0.0.1 7000
#include <array>
#include <cstdio>

#include "server/loop/proactor.h"
#include "server/net/accept_loop.h"
#include "server/net/listener.h"
#include "server/net/stream.h"

namespace {

using kevent::loop::Loop;
using kevent::loop::Task;

Task<void> Echo(Loop* loop, int fd) {
  kevent::net::Stream stream(loop, fd);
  std::array<std::byte, 4096> buffer;
  for (;;) {
    stream.SetTimeout(60'000'000'000);
    int64_t n = co_await stream.Read(buffer);
    if (n <= 0) co_return;
    std::span<const std::byte> data(buffer.data(), static_cast<size_t>(n));
    if (co_await stream.Write(data) < n) co_return;
  }
}

Task<void> Serve(Loop* loop, int listener) {
  co_await kevent::net::AcceptLoop(
      loop, listener, [loop](int fd) { loop->Spawn(Echo(loop, fd)); });
}

}  // namespace

int main(int argc, char** argv) {
  auto loop = Loop::Create({}).value();
  auto address =
      kevent::net::Address::Parse(argc > 1 ? argv[1] : "127.0.0.1:7000")
          .value();
  auto listener = kevent::net::Listener::Listen(address, {}).value();
  printf("listening on %s\n", listener.address().ToString().c_str());
  fflush(stdout);
  loop->Spawn(Serve(loop.get(), listener.Release()));
  loop->Run();
}
