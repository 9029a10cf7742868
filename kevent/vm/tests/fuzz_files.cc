// SPDX-License-Identifier: Apache-2.0
#include "kevent/vm/tests/fuzz_files.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include "kevent/vm/tests/raw.h"

namespace kevent::raw {

void MakeFiles(Dice* dice, Files* files, const std::string& folder) {
  int fds[2] = {-1, -1};
  switch ((*dice)(12)) {
    case 0:
      if (pipe2(fds, O_NONBLOCK | O_CLOEXEC)) return;
      break;
    case 1:
      if (socketpair(
              AF_UNIX,
              dice->Of(std::array{SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) |
                  SOCK_NONBLOCK | SOCK_CLOEXEC,
              0, fds)) {
        return;
      }
      break;
    case 2: {
      const int family = dice->OneIn(2) ? AF_INET : AF_INET6;
      const int listener =
          socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      listen(listener, 4);
      sockaddr_storage address;
      socklen_t length = sizeof address;
      auto* p = reinterpret_cast<sockaddr*>(&address);
      getsockname(listener, p, &length);
      fds[0] = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      connect(fds[0], p, length);
      if (dice->OneIn(4)) {
        files->Put(dice, listener);
      } else {
        fds[1] =
            accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        close(listener);
      }
      break;
    }
    case 3:
      fds[0] = socket(dice->OneIn(2) ? AF_INET : AF_INET6,
                      SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      break;
    case 4:
      fds[0] = eventfd(static_cast<unsigned>((*dice)(2)),
                       EFD_NONBLOCK | EFD_CLOEXEC);
      break;
    case 5: {
      fds[0] = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
      itimerspec spec = {};
      spec.it_value.tv_nsec = static_cast<long>(1 + (*dice)(2 * kMs));
      timerfd_settime(fds[0], 0, &spec, nullptr);
      break;
    }
    case 6: {
      sigset_t mask;
      sigemptyset(&mask);
      sigaddset(&mask, kMutedSignal);
      fds[0] = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
      break;
    }
    case 7:
      fds[0] = epoll_create1(EPOLL_CLOEXEC);
      break;
    case 8:
      fds[0] = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
      break;
    case 9:
      fds[0] = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
      inotify_add_watch(fds[0], folder.c_str(), IN_CREATE);
      break;
    case 10:
      fds[0] = open((folder + "/" + std::to_string((*dice)(8))).c_str(),
                    O_CREAT | O_RDWR | O_CLOEXEC, 0600);
      break;
    default:
      fds[0] = open(folder.c_str(),
                    dice->OneIn(2) ? O_PATH | O_CLOEXEC : O_RDONLY | O_CLOEXEC);
  }
  files->Put(dice, fds[0]);
  files->Put(dice, fds[1]);
}

void Stir(Dice* dice, Files* files, const std::string& folder) {
  const int fd = files->Pick(dice);
  char block[16] = "stir";
  switch ((*dice)(9)) {
    case 0:
    case 1:
    case 2: {
      const uint64_t one = 1;
      if (write(fd, &one, sizeof one) < 0) errno = 0;
      break;
    }
    case 3:
    case 4:
      if (read(fd, block, sizeof block) < 0) errno = 0;
      break;
    case 5:
      shutdown(fd, static_cast<int>((*dice)(3)));
      break;
    case 6: {
      const std::string name = folder + "/" + std::to_string((*dice)(8));
      switch ((*dice)(4)) {
        case 0:
          unlink(name.c_str());
          break;
        case 1:
          rename(name.c_str(), (name + "x").c_str());
          break;
        case 2:
          chmod(name.c_str(), 0600);
          break;
        default:
          close(open(name.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
      }
      break;
    }
    case 7:
      kill(getpid(), kMutedSignal);
      break;
    default:
      close(accept4(fd, nullptr, nullptr, SOCK_CLOEXEC));
  }
}

}  // namespace kevent::raw
