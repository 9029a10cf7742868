// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVCTL_TABLE_H_
#define SERVER_KEVCTL_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kevent::kevctl {

class Table {
 public:
  explicit Table(std::vector<std::string> heads) : rows_{std::move(heads)} {}

  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

  std::string ToString() const;
  // Columns of numbers stand to the right, others to the left; a line for each
  // row.

 private:
  std::vector<std::vector<std::string>> rows_;
};
// Text in columns.

std::string Printable(std::string_view text);
// With bytes that are not visible ASCII or a blank as \xHH, and backslashes as
// \\: what a server says must not steer a terminal.

std::string Count(uint64_t value);
// "1234", and from 100,000 on "123k", "12.3M" and so on.
std::string Bytes(uint64_t value);
// "123 B", "1.2 MiB".
std::string Time(uint64_t ns);
// "12 us", "3.4 ms", "5.6 s", "1 h 2 min"; "-" for 0.

}  // namespace kevent::kevctl

#endif  // SERVER_KEVCTL_TABLE_H_
