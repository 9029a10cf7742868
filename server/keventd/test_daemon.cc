// SPDX-License-Identifier: Apache-2.0
#include "server/keventd/test_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace kevent::keventd {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kDeadline(30'000);

// Beside the test among Bazel's run files; KEVENTD names another.
std::string Binary() {
  if (const char* given = getenv("KEVENTD")) return given;
  return "server/keventd/keventd";
}

int LeftMs(Clock::time_point deadline) {
  auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      deadline - Clock::now());
  return static_cast<int>(std::max<int64_t>(left.count(), 0));
}

}  // namespace

Process::Process(const std::vector<std::string>& command) {
  int out[2];
  int err[2];
  if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0) abort();
  std::vector<char*> arguments;
  for (const std::string& argument : command) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) abort();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    execvp(arguments[0], arguments.data());
    perror(arguments[0]);
    _exit(127);
  }
  close(out[1]);
  close(err[1]);
  pipes_[0] = out[0];
  pipes_[1] = err[0];
}

Process::~Process() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  for (int fd : pipes_) {
    if (fd >= 0) close(fd);
  }
}

// False when both pipes are at their end, or at the time-out.
bool Process::ReadSome(int timeout_ms) {
  pollfd polled[2] = {{pipes_[0], POLLIN, 0}, {pipes_[1], POLLIN, 0}};
  if (pipes_[0] < 0 && pipes_[1] < 0) return false;
  int r = poll(polled, 2, timeout_ms);
  if (r < 0) return errno == EINTR;
  if (r == 0) return false;
  for (int i = 0; i < 2; ++i) {
    if (polled[i].revents == 0) continue;
    char buffer[4096];
    ssize_t n = read(pipes_[i], buffer, sizeof buffer);
    if (n > 0) {
      output_[i].append(buffer, static_cast<size_t>(n));
    } else if (n == 0 || errno != EINTR) {
      close(std::exchange(pipes_[i], -1));
    }
  }
  return true;
}

bool Process::AwaitLine(int timeout_ms) {
  const Clock::time_point deadline =
      Clock::now() + std::chrono::milliseconds(timeout_ms);
  while (out().find('\n') == std::string::npos) {
    if (!ReadSome(LeftMs(deadline))) return false;
  }
  return true;
}

bool Process::AwaitMore() {
  return ReadSome(static_cast<int>(kDeadline.count()));
}

int Process::Wait() {
  const Clock::time_point deadline = Clock::now() + kDeadline;
  // Its end is the end of its output.
  while (ReadSome(LeftMs(deadline))) {
  }
  const bool late = pipes_[0] >= 0 || pipes_[1] >= 0;
  if (late) kill(pid_, SIGKILL);
  int status = 0;
  waitpid(std::exchange(pid_, -1), &status, 0);
  if (late) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void Process::Signal(int signo) {
  if (pid_ > 0) kill(pid_, signo);
}

namespace {

std::vector<std::string> Command(std::vector<std::string> flags) {
  // Several at a time would want the same socket.
  if (std::none_of(flags.begin(), flags.end(), [](const std::string& flag) {
        return flag.starts_with("--admin=");
      })) {
    flags.push_back("--admin=off");
  }
  flags.insert(flags.begin(), Binary());
  return flags;
}

}  // namespace

TestDaemon::TestDaemon(std::vector<std::string> flags)
    : Process(Command(std::move(flags))) {}

bool TestDaemon::AwaitReady() {
  if (AwaitLine() && !ports().empty()) return true;
  fprintf(stderr, "keventd is not ready: %s%s", out().c_str(), err().c_str());
  return false;
}

std::string TestDaemon::ready_line() const {
  return out().substr(0, out().find('\n'));
}

std::vector<uint16_t> TestDaemon::ports() const {
  static constexpr std::string_view kScheme = "http://";
  std::vector<uint16_t> ports;
  const std::string line = ready_line();
  for (size_t at = 0; (at = line.find(kScheme, at)) != std::string::npos;) {
    at += kScheme.size();
    size_t end = line.find_first_of(", ", at);
    size_t colon = line.rfind(':', end);
    ports.push_back(static_cast<uint16_t>(atoi(line.c_str() + colon + 1)));
  }
  return ports;
}

std::string MakeTempDirectory() {
  const char* base = getenv("TEST_TMPDIR");
  std::string name = std::string(base ? base : "/tmp") + "/keventd.XXXXXX";
  if (!mkdtemp(name.data())) abort();
  chmod(name.c_str(), 0755);
  return name;
}

}  // namespace kevent::keventd
