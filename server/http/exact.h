// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_EXACT_H_
#define SERVER_HTTP_EXACT_H_

#include <cstddef>
#include <memory>
#include <string_view>

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

}  // namespace kevent::http

#endif  // SERVER_HTTP_EXACT_H_
