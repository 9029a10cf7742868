// SPDX-License-Identifier: Apache-2.0
//
// The example docs/examples/raw_abi.c does what it says.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <string>

#include "kevent/vm/tests/fixture.h"

namespace kevent::raw {
namespace {

const char* program = nullptr;

class Lines {
 public:
  explicit Lines(Fd fd) : fd_(std::move(fd)) {}
  // Reads until a line begins with `begin`, and returns its rest.
  std::string Await(const std::string& begin) {
    for (;;) {
      const size_t end = text_.find('\n');
      if (end != std::string::npos) {
        const std::string line = text_.substr(0, end);
        text_.erase(0, end + 1);
        if (line.rfind(begin, 0) == 0) return line.substr(begin.size());
        continue;
      }
      char block[256];
      ssize_t n = WaitPoll(fd_.get(), POLLIN | POLLHUP)
                      ? read(fd_.get(), block, sizeof block)
                      : -1;
      if (n <= 0) {
        ADD_FAILURE() << "it does not say: " << begin;
        return "";
      }
      text_.append(block, static_cast<size_t>(n));
    }
  }

 private:
  Fd fd_;
  std::string text_;
};

TEST(RawAbiTest, WaitsForThreeThingsAtOnce) {
  const std::string file = TempFolder() + "/watched";
  Fd fd(open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  ASSERT_TRUE(fd) << strerror(errno);
  Pair output = PipePair();
  Child child([&] {
    CHILD_CHECK(dup2(output.peer.get(), 1) == 1);
    execl(program, program, file.c_str(), nullptr);
    CHILD_CHECK(false);
  });
  output.peer.Reset();
  Lines lines(std::move(output.ours));
  const std::string port = lines.Await("listening on 127.0.0.1:");
  ASSERT_FALSE(port.empty());

  for (int i = 0; i < 3; ++i) {
    Fd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(std::stoi(port)));
    ASSERT_EQ(0, connect(client.get(), reinterpret_cast<sockaddr*>(&address),
                         sizeof address))
        << strerror(errno);
    ReadExactly(client.get(), strlen("hello\n"));
    EXPECT_TRUE(AtEnd(client.get()));
    lines.Await("a connection");
  }
  lines.Await("1 s passed");
  Send(fd.get(), "x");
  lines.Await("the file was written to");
  ASSERT_EQ(0, fchmod(fd.get(), 0640));
  lines.Await("the file's attributes were changed");
  ASSERT_EQ(0, unlink(file.c_str()));
  fd.Reset();
  lines.Await("the file is gone");
  EXPECT_CHILD_OK(child);
}

TEST(RawAbiTest, SaysWhatIsWrong) {
  Pair output = PipePair();
  Child child([&] {
    CHILD_CHECK(dup2(output.peer.get(), 2) == 2);
    execl(program, program, "/not/there", nullptr);
  });
  output.peer.Reset();
  Lines lines(std::move(output.ours));
  EXPECT_EQ("No such file or directory", lines.Await("raw_abi: /not/there: "));
  EXPECT_EQ(1 << 8, child.Wait());
}

}  // namespace
}  // namespace kevent::raw

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc != 2) {
    fprintf(stderr, "usage: raw_abi_test PROGRAM\n");
    return 2;
  }
  kevent::raw::program = argv[1];
  return RUN_ALL_TESTS();
}
