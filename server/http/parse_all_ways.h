// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_PARSE_ALL_WAYS_H_
#define SERVER_HTTP_PARSE_ALL_WAYS_H_

#include <memory>
#include <string>
#include <string_view>

#include "server/http/parser.h"

namespace kevent::http {

class Exact {
 public:
  explicit Exact(std::string_view text)
      : bytes_(new char[text.size()]), size_(text.size()) {
    text.copy(bytes_.get(), size_);
  }
  std::string_view view() const { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<char[]> bytes_;
  size_t size_;
};
// A copy in memory of its exact size: the sanitizers see any byte read beyond
// it.

std::string Describe(const Request& r);
// What a request is, with texts of its own.

ParseResult ParseAllWays(std::string_view text, const Limits& limits,
                         Request* request);
// The outcome for the whole text, after checking that every prefix and every
// way of arriving in two parts or byte by byte has the same. The request's
// views are into `text`.

Request Good(std::string_view text, const Limits& limits = Limits());
// The request that `text` must be.

int Status(std::string_view text, const Limits& limits = Limits());
// The status that `text` must be refused with.

}  // namespace kevent::http

#endif  // SERVER_HTTP_PARSE_ALL_WAYS_H_
