// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVENTD_TEST_DAEMON_H_
#define SERVER_KEVENTD_TEST_DAEMON_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace kevent::keventd {

class Process {
 public:
  explicit Process(const std::vector<std::string>& command);
  // Starts it, with pipes as its output. It does not outlive this process.
  ~Process();  // kills it
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  bool AwaitLine(int timeout_ms = 30'000);
  // Waits for a whole line on its standard output; false if it ends before, or
  // at the time-out.
  bool AwaitMore();
  // Waits for any output; false as above.
  int Wait();
  // Waits for its end: the exit status, 128 + number of the signal that ended
  // it, or -1 at the deadline (and kills it).
  void Signal(int signo);

  pid_t pid() const { return pid_; }
  const std::string& out() const { return output_[0]; }  // so far
  const std::string& err() const { return output_[1]; }

 private:
  bool ReadSome(int timeout_ms);

  pid_t pid_ = -1;
  int pipes_[2] = {-1, -1};
  std::string output_[2];
};
// A child process under test. Waits end after 30 s.

class TestDaemon : public Process {
 public:
  explicit TestDaemon(std::vector<std::string> flags);
  // keventd with these flags, and --admin=off if there is no --admin.

  bool AwaitReady();
  // Waits for the ready line; false and a line on stderr if there is none.
  std::string ready_line() const;
  std::vector<uint16_t> ports() const;
  // Of its http:// addresses, in the order of the ready line.
  uint16_t port() const { return ports().front(); }
};

std::string MakeTempDirectory();
// Readable by everybody; the caller removes it.

}  // namespace kevent::keventd

#endif  // SERVER_KEVENTD_TEST_DAEMON_H_
