// SPDX-License-Identifier: Apache-2.0
// Runs the fuzzer's entry over mutated inputs, for compilers without libFuzzer
// and for every run of the tests. PARSER_FUZZ_SEED in the environment repeats
// the run that printed it.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <random>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace kevent::http {
namespace {

constexpr int kInputs = 200000;
constexpr std::chrono::seconds kTime(5);

constexpr std::string_view kWholes[] = {
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a/b?c=d HTTP/1.1\r\nHost: www.example.org:8080\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n"
    "Accept-Encoding: gzip, br\r\nConnection: keep-alive\r\n\r\n",
    "HEAD http://[::1]:80/x?y HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
    "\r\nPOST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    "Expect: 100-continue\r\n\r\nhelloGET / HTTP/1.0\r\n\r\n",
    "PUT /f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    "5;a=b\r\nhello\r\n1;c=\"d\\\"\"\r\n!\r\n0\r\nTrailer: x\r\n\r\nGET",
    "5\r\nhello\r\n10;x;y=z\r\n0123456789abcdef\r\n000\r\nA: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nIf-Match: \"a\", W/\"b\"\r\n"
    "If-None-Match: *\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    "If-Unmodified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n"
    "If-Range: Sun Nov  6 08:49:37 1994\r\nRange: bytes=0-9,-5,20-\r\n\r\n",
    "bytes=0-0,5-9,-1,100-",
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
};

constexpr std::string_view kParts[] = {
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\n\n",
    "\r\n ",
    " ",
    "\t",
    ":",
    ": ",
    ",",
    ";",
    "=",
    "\"",
    "\\",
    "\x7f",
    "\xff",
    "#",
    "?",
    "*",
    "%",
    "//",
    "@",
    "[",
    "]",
    "-",
    "GET ",
    "CONNECT ",
    "OPTIONS ",
    "HTTP/1.0",
    "HTTP/1.1",
    "HTTP/2.0",
    "http://",
    "Host: b\r\n",
    "Content-Length: 5\r\n",
    "Content-Length",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding",
    "chunked",
    "gzip",
    "identity",
    "close",
    "keep-alive",
    "100-continue",
    "Connection: close\r\n",
    "0\r\n\r\n",
    "7fffffffffffffff",
    "9223372036854775807",
    "18446744073709551616",
    "Range: bytes=",
    "W/",
    "GMT",
    "Feb",
};

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  std::string Next() {
    std::string text(kWholes[Below(std::size(kWholes))]);
    for (size_t changes = Below(6); changes > 0; --changes) Change(&text);
    std::string input(2, '\0');
    // Often the usual limits, or most inputs would end at a small one.
    input[0] = static_cast<char>(Below(2) == 0 ? 0 : Below(256));
    input[1] = static_cast<char>(Below(256));
    return input + text;
  }

 private:
  size_t Below(size_t bound) { return random_() % bound; }

  void Change(std::string* text) {
    const size_t at = Below(text->size() + 1);
    switch (Below(8)) {
      case 0:
        if (at < text->size()) (*text)[at] = static_cast<char>(Below(256));
        break;
      case 1:
        if (at < text->size()) (*text)[at] ^= static_cast<char>(1 << Below(8));
        break;
      case 2:
        text->erase(at, 1 + Below(4));
        break;
      case 3:
        text->resize(at);
        break;
      case 4:  // repeats a part of itself
        text->insert(at, text->substr(Below(text->size() + 1), Below(40)));
        break;
      case 5:
        text->insert(at, std::string(Below(60), static_cast<char>(Below(256))));
        break;
      default:
        text->insert(at, kParts[Below(std::size(kParts))]);
        break;
    }
  }

  std::mt19937_64 random_;
};

TEST(ParserFuzzSmokeTest, InvariantsHoldForMutatedInputs) {
  const char* given = std::getenv("PARSER_FUZZ_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0)
                                         : std::random_device()();
  std::printf("PARSER_FUZZ_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  Mutator mutator(seed);
  const auto end = std::chrono::steady_clock::now() + kTime;
  int count = 0;
  while (count < kInputs && std::chrono::steady_clock::now() < end) {
    const std::string input = mutator.Next();
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()),
                           input.size());
    ++count;
  }
  std::printf("%d inputs\n", count);
  EXPECT_GT(count, 0);
}

TEST(ParserFuzzSmokeTest, TheUnchangedInputsPassToo) {
  for (std::string_view whole : kWholes) {
    for (char step : {'\0', '\1', '\7', '\x3f'}) {
      const std::string input =
          std::string(1, '\0') + step + std::string(whole);
      LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()),
                             input.size());
    }
  }
}

}  // namespace
}  // namespace kevent::http
