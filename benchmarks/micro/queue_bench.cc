// SPDX-License-Identifier: Apache-2.0
//
// What kevent::Queue itself spends, on each engine that works here.
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "kevent/queue/queue.h"

namespace kevent {
namespace {

std::unique_ptr<Queue> NewQueue(EngineKind engine) {
  Queue::Options options;
  options.engine = engine;
  auto queue = Queue::Create(options);
  return queue.ok() ? *std::move(queue) : nullptr;
}

void Check(bool ok) {
  if (!ok) abort();
}

// Takes entries until there were `count` of them, each of them a success.
void Await(Queue* queue, size_t count) {
  std::array<Entry, 256> entries;
  while (count > 0) {
    Wait wait;
    wait.min = std::min(count, entries.size());
    int n = queue->Enter(entries, wait);
    Check(n > 0);
    for (int i = 0; i < n; ++i) {
      Check(entries[static_cast<size_t>(i)].result >= 0);
    }
    count -= static_cast<size_t>(n);
  }
}

// User events: `range` posts from the queue's own thread, then their entries.
void BM_PostAndTake(benchmark::State& state, EngineKind engine) {
  auto queue = NewQueue(engine);
  std::vector<PostOp> posts(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    for (PostOp& post : posts) Check(queue->Post(&post) == 0);
    Await(queue.get(), posts.size());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

// `range` operations submitted and their entries taken, with as little as can
// be for the kernel to do in each: a recv at the end of a stream.
void BM_SubmitAndReap(benchmark::State& state, EngineKind engine) {
  auto queue = NewQueue(engine);
  std::vector<RecvOp> recvs(static_cast<size_t>(state.range(0)));
  char buffer[64];
  for (RecvOp& recv : recvs) {
    int fd[2];
    Check(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
    close(fd[1]);
    recv.fd = fd[0];
    recv.buffer = buffer;
    recv.size = sizeof buffer;
  }
  for (auto _ : state) {
    for (RecvOp& recv : recvs) Check(queue->Submit(&recv) == 0);
    Await(queue.get(), recvs.size());
  }
  for (RecvOp& recv : recvs) queue->Close(recv.fd);
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

// The same call to the system, as a measure for the above.
void BM_RecvSystemCall(benchmark::State& state) {
  int fd[2];
  Check(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
  close(fd[1]);
  char buffer[64];
  for (auto _ : state) Check(recv(fd[0], buffer, sizeof buffer, 0) == 0);
  close(fd[0]);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_RecvSystemCall);

// A pair of connected stream sockets that send 64 bytes from one end to the
// other and back.
struct Pair {
  int fd[2] = {-1, -1};
  char out[64] = {};
  char in[64];
  SendOp send;
  RecvOp recv;

  Pair() { Check(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0); }

  // The recv waits for what the send makes ready.
  void Move(Queue* queue, int from) {
    recv.fd = fd[1 - from];
    recv.buffer = in;
    recv.size = sizeof in;
    Check(queue->Submit(&recv) == 0);
    send.fd = fd[from];
    send.Set(out, sizeof out);
    send.flags = kOpSkipSuccess;
    Check(queue->Submit(&send) == 0);
  }
};

// `range` pairs at once; an item is one message sent and received.
void BM_SocketpairRoundTrip(benchmark::State& state, EngineKind engine) {
  auto queue = NewQueue(engine);
  std::vector<Pair> pairs(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    for (int from : {0, 1}) {
      for (Pair& pair : pairs) pair.Move(queue.get(), from);
      Await(queue.get(), pairs.size());
    }
  }
  for (Pair& pair : pairs) {
    for (int fd : pair.fd) queue->Close(fd);
  }
  state.SetItemsProcessed(state.iterations() * 2 * state.range(0));
}

// The same by the system's own calls, as a measure for the above.
void BM_SocketpairSystemCalls(benchmark::State& state) {
  int fd[2];
  Check(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
  char buffer[64] = {};
  for (auto _ : state) {
    for (int from : {0, 1}) {
      Check(send(fd[from], buffer, sizeof buffer, 0) == sizeof buffer);
      Check(recv(fd[1 - from], buffer, sizeof buffer, 0) == sizeof buffer);
    }
  }
  close(fd[0]);
  close(fd[1]);
  state.SetItemsProcessed(state.iterations() * 2);
}
BENCHMARK(BM_SocketpairSystemCalls);

// A level interest among `range` idle ones becomes ready and is reported.
void BM_PollAmongIdle(benchmark::State& state, EngineKind engine) {
  auto queue = NewQueue(engine);
  std::vector<int> fds(static_cast<size_t>(state.range(0)) + 1);
  for (int& fd : fds) {
    fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    Check(fd >= 0);
    Interest interest;
    interest.fd = fd;
    interest.events = POLLIN;
    interest.flags = kEdge;
    Handle handle;
    Check(queue->Add(interest, &handle) == 0);
  }
  uint64_t value = 1;
  for (auto _ : state) {
    Check(write(fds[0], &value, sizeof value) == sizeof value);
    Await(queue.get(), 1);
    Check(read(fds[0], &value, sizeof value) == sizeof value);
  }
  for (int fd : fds) queue->Close(fd);
}

// An interest added and removed again.
void BM_AddAndRemove(benchmark::State& state, EngineKind engine) {
  auto queue = NewQueue(engine);
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  Interest interest;
  interest.fd = fd;
  interest.events = POLLIN;
  for (auto _ : state) {
    Handle handle;
    Check(queue->Add(interest, &handle) == 0);
    Check(queue->Remove(handle) == 0);
  }
  queue->Close(fd);
}

void Register(EngineKind engine) {
  const std::string suffix = "/" + std::string(EngineName(engine));
  auto add = [&](const char* name, void (*fn)(benchmark::State&, EngineKind)) {
    return benchmark::RegisterBenchmark((name + suffix).c_str(), fn, engine);
  };
  add("BM_PostAndTake", BM_PostAndTake)->Arg(1)->Arg(64);
  add("BM_SubmitAndReap", BM_SubmitAndReap)->Arg(1)->Arg(64);
  add("BM_SocketpairRoundTrip", BM_SocketpairRoundTrip)->Arg(1)->Arg(64);
  add("BM_PollAmongIdle", BM_PollAmongIdle)->Arg(0)->Arg(1000);
  add("BM_AddAndRemove", BM_AddAndRemove);
}

}  // namespace
}  // namespace kevent

int main(int argc, char** argv) {
  using kevent::EngineKind;
  for (EngineKind engine :
       {EngineKind::kEpoll, EngineKind::kUring, EngineKind::kModule}) {
    if (kevent::NewQueue(engine)) {
      kevent::Register(engine);
    } else {
      fprintf(stderr, "engine %s does not work here\n",
              std::string(kevent::EngineName(engine)).c_str());
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
