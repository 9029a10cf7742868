// SPDX-License-Identifier: Apache-2.0
//
// The echo server of ./kev bench vm echo on libuv: reading stays on, all
// connections read into one buffer, and what was read is sent at once by
// uv_try_write, which needs no request; only what the socket does not take is
// queued, in memory of its own.
//
//   echo_libuv PORT
#include <uv.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "benchmarks/vm/common.h"

namespace {

char shared_buffer[kevent::bench::kEchoBuffer];

void Check(int r, const char* what) {
  if (r >= 0) return;
  fprintf(stderr, "echo_libuv: %s: %s\n", what, uv_strerror(r));
  exit(1);
}

uv_stream_t* Stream(uv_tcp_t* tcp) {
  return reinterpret_cast<uv_stream_t*>(tcp);
}

void OnClose(uv_handle_t* handle) {
  delete reinterpret_cast<uv_tcp_t*>(handle);
}

void Close(uv_stream_t* stream) {
  auto* handle = reinterpret_cast<uv_handle_t*>(stream);
  if (!uv_is_closing(handle)) uv_close(handle, OnClose);
}

void OnAlloc(uv_handle_t*, size_t, uv_buf_t* buffer) {
  *buffer = uv_buf_init(shared_buffer, sizeof shared_buffer);
}

struct Write {
  uv_write_t request;
  std::unique_ptr<char[]> data;
};

void OnWritten(uv_write_t* request, int status) {
  std::unique_ptr<Write> write(static_cast<Write*>(request->data));
  if (status < 0) Close(request->handle);
}

void Queue(uv_stream_t* stream, const char* data, size_t size) {
  auto write = std::make_unique<Write>();
  write->data = std::make_unique<char[]>(size);
  memcpy(write->data.get(), data, size);
  write->request.data = write.get();
  uv_buf_t buffer =
      uv_buf_init(write->data.get(), static_cast<unsigned int>(size));
  if (uv_write(&write->request, stream, &buffer, 1, OnWritten) < 0) {
    Close(stream);
    return;
  }
  (void)write.release();
}

void OnRead(uv_stream_t* stream, ssize_t n, const uv_buf_t* buffer) {
  if (n == 0) return;  // EAGAIN
  if (n < 0) {
    Close(stream);
    return;
  }
  uv_buf_t piece = uv_buf_init(buffer->base, static_cast<unsigned int>(n));
  int sent = uv_try_write(stream, &piece, 1);
  if (sent < 0 && sent != UV_EAGAIN) {
    Close(stream);
    return;
  }
  sent = std::max(sent, 0);
  if (sent < n) {
    Queue(stream, buffer->base + sent, static_cast<size_t>(n - sent));
  }
}

void OnConnection(uv_stream_t* listener, int status) {
  Check(status, "connection");
  auto* connection = new uv_tcp_t;
  Check(uv_tcp_init(listener->loop, connection), "uv_tcp_init");
  if (uv_accept(listener, Stream(connection)) < 0) {
    Close(Stream(connection));
    return;
  }
  uv_tcp_nodelay(connection, 1);
  Check(uv_read_start(Stream(connection), OnAlloc, OnRead), "uv_read_start");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: echo_libuv PORT\n");
    return 2;
  }
  uv_loop_t* loop = uv_default_loop();
  uv_tcp_t listener;
  Check(uv_tcp_init(loop, &listener), "uv_tcp_init");
  const sockaddr_in address =
      kevent::bench::Loopback(static_cast<uint16_t>(atoi(argv[1])));
  Check(uv_tcp_bind(&listener, reinterpret_cast<const sockaddr*>(&address), 0),
        "bind");
  Check(uv_listen(Stream(&listener), 1024, OnConnection), "listen");
  uv_run(loop, UV_RUN_DEFAULT);
}
