// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVCTL_SCREEN_H_
#define SERVER_KEVCTL_SCREEN_H_

#include <termios.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>

namespace kevent::kevctl {

class Screen {
 public:
  explicit Screen(std::function<void()> on_end);
  // Takes the terminal's other screen. `on_end` is called, in a thread of its
  // own, when q is pressed, or at SIGINT or SIGTERM, which BlockSignals must
  // have blocked.
  ~Screen();
  // Gives the terminal back as it was.
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  static void BlockSignals();
  // Before there are threads.

  void Show(const std::string& text);
  // Cut to the size of the terminal. Without a terminal the text as it is.

  bool asked_to_end() const { return asked_.load(); }

 private:
  void Listen();

  const std::function<void()> on_end_;
  const bool terminal_;
  bool raw_ = false;
  termios before_ = {};
  int signals_ = -1;
  int stop_ = -1;  // eventfd
  std::atomic<bool> asked_{false};
  std::thread thread_;
};
// A live screen on standard output.

}  // namespace kevent::kevctl

#endif  // SERVER_KEVCTL_SCREEN_H_
