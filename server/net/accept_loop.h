// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_NET_ACCEPT_LOOP_H_
#define SERVER_NET_ACCEPT_LOOP_H_

#include <cstdint>

#include "absl/functional/any_invocable.h"
#include "server/loop/cancel.h"
#include "server/loop/loop.h"
#include "server/loop/task.h"

namespace kevent::net {

struct AcceptLoopOptions {
  loop::CancelToken cancel;  // ends it
  int64_t pause_ns = 100'000'000;
  // After running out of descriptors or memory: until the next try.
  absl::AnyInvocable<void(int error)> on_pause;
  // Called with the errno when such a pause begins, once until a connection has
  // been accepted again; may be empty.
};

loop::Task<int64_t> AcceptLoop(loop::Loop* loop, int listener,
                               absl::AnyInvocable<void(int fd)> on_connection,
                               AcceptLoopOptions options = {});
// Accepts connections for as long as it lives, by one multishot operation, and
// gives each new descriptor (close-on-exec) to `on_connection`, which owns it.
//
// When descriptors, memory or the queue's operations have run out (-EMFILE,
// -ENFILE, -ENOBUFS, -ENOMEM, -EAGAIN) or the network failed under a connection
// (accept(2), "Error handling"), connections stay in the backlog and it tries
// again after `pause_ns` nanoseconds, or sooner when Loop::Close has closed a
// descriptor. It ends, with that result, on -ECANCELED (its token, or
// Loop::Close of the listener) and on errors of the listener itself (-EBADF,
// -EINVAL, -ENOTSOCK, -EOPNOTSUPP, -EFAULT). It does not close the listener.

}  // namespace kevent::net

#endif  // SERVER_NET_ACCEPT_LOOP_H_
