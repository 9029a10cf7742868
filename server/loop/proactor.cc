// SPDX-License-Identifier: Apache-2.0
#include "server/loop/proactor.h"

#include <algorithm>
#include <cstring>

namespace kevent::loop {

namespace {

void SetAddress(ConnectOp* op, const sockaddr* address, socklen_t length) {
  // Refused by Submit if it is longer.
  memcpy(&op->address, address, std::min<size_t>(length, sizeof op->address));
  op->address_length = length;
}

}  // namespace

ConnectAwait::ConnectAwait(Loop* loop, int fd, const sockaddr* address,
                           socklen_t length, const AwaitOptions& options)
    : OperationAwait(loop, fd, options) {
  SetAddress(this, address, length);
}

int Proactor::Accept(AcceptOp* op, int listener, bool multishot,
                     CompletionFn fn) {
  op->fd = listener;
  op->flags = multishot ? kOpMultishot : 0;
  return loop_->Submit(op, fn);
}

int Proactor::Connect(ConnectOp* op, int fd, const sockaddr* address,
                      socklen_t length, CompletionFn fn) {
  op->fd = fd;
  SetAddress(op, address, length);
  return loop_->Submit(op, fn);
}

int Proactor::Recv(RecvOp* op, int fd, std::span<std::byte> into,
                   CompletionFn fn) {
  op->fd = fd;
  op->flags = 0;
  op->pool = nullptr;
  op->buffer = into.data();
  op->size = static_cast<uint32_t>(std::min<size_t>(into.size(), 1u << 30));
  return loop_->Submit(op, fn);
}

int Proactor::RecvPool(RecvOp* op, int fd, BufferPool* pool, bool multishot,
                       CompletionFn fn) {
  op->fd = fd;
  op->flags = multishot ? kOpMultishot : 0;
  op->pool = pool;
  return loop_->Submit(op, fn);
}

int Proactor::Send(SendOp* op, int fd, std::span<const std::byte> data,
                   bool more, CompletionFn fn) {
  op->fd = fd;
  op->Set(data.data(), data.size());
  op->more = more;
  return loop_->Submit(op, fn);
}

int Proactor::Send(SendOp* op, int fd, std::span<const iovec> pieces, bool more,
                   CompletionFn fn) {
  op->fd = fd;
  op->pieces = pieces;
  op->more = more;
  return loop_->Submit(op, fn);
}

int Proactor::SendFile(SendfileOp* op, int fd,
                       std::span<const std::byte> header, int file,
                       int64_t offset, int64_t length,
                       std::span<const std::byte> trailer, CompletionFn fn) {
  op->fd = fd;
  op->header = header;
  op->file = file;
  op->offset = offset;
  op->length = length;
  op->trailer = trailer;
  return loop_->Submit(op, fn);
}

int Proactor::Shutdown(ShutdownOp* op, int fd, int how, CompletionFn fn) {
  op->fd = fd;
  op->how = how;
  return loop_->Submit(op, fn);
}

int Proactor::Close(CloseOp* op, int fd, CompletionFn fn) {
  op->fd = fd;
  return loop_->Submit(op, fn);
}

}  // namespace kevent::loop
