// SPDX-License-Identifier: Apache-2.0
#include "server/kevctl/screen.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <utility>

namespace kevent::kevctl {
namespace {

sigset_t EndSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signo : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signo);
  return set;
}

}  // namespace

void Screen::BlockSignals() {
  const sigset_t set = EndSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

Screen::Screen(std::function<void()> on_end)
    : on_end_(std::move(on_end)), terminal_(isatty(STDOUT_FILENO) == 1) {
  if (terminal_) {
    if (isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before_) == 0) {
      termios raw = before_;
      raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
      raw_ = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    }
    // The other screen, without a cursor.
    fputs("\x1b[?1049h\x1b[?25l", stdout);
    fflush(stdout);
  }
  const sigset_t set = EndSignals();
  signals_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  stop_ = eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { Listen(); });
}

Screen::~Screen() {
  const uint64_t one = 1;
  const ssize_t n = write(stop_, &one, sizeof one);
  static_cast<void>(n);
  thread_.join();
  close(signals_);
  close(stop_);
  if (raw_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  if (terminal_) {
    fputs("\x1b[?25h\x1b[?1049l", stdout);
    fflush(stdout);
  }
}

void Screen::Listen() {
  for (;;) {
    pollfd polled[3] = {{stop_, POLLIN, 0},
                        {signals_, POLLIN, 0},
                        {raw_ ? STDIN_FILENO : -1, POLLIN, 0}};
    if (poll(polled, 3, -1) < 0) continue;
    if (polled[0].revents) return;
    char key = 0;
    const bool quit = polled[1].revents != 0 ||
                      (polled[2].revents && (read(STDIN_FILENO, &key, 1) <= 0 ||
                                             key == 'q' || key == 'Q'));
    if (!quit) continue;
    asked_.store(true);
    on_end_();
    return;
  }
}

void Screen::Show(const std::string& text) {
  if (!terminal_) {
    fputs(text.c_str(), stdout);
    fputs("\n", stdout);
    fflush(stdout);
    return;
  }
  winsize size = {};
  ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
  const size_t columns = size.ws_col ? size.ws_col : 80;
  const size_t rows = size.ws_row ? size.ws_row : 24;
  std::string out = "\x1b[H";
  std::string_view rest = text;
  for (size_t row = 0; row + 1 < rows && !rest.empty(); ++row) {
    const size_t end = rest.find('\n');
    out += rest.substr(0, std::min(end, columns));
    // To the end of the line, and to the next one.
    out += "\x1b[K\r\n";
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  out += "\x1b[J";
  fputs(out.c_str(), stdout);
  fflush(stdout);
}

}  // namespace kevent::kevctl
