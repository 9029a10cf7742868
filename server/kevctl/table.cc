// SPDX-License-Identifier: Apache-2.0
#include "server/kevctl/table.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

namespace kevent::kevctl {
namespace {

bool LooksLikeNumber(std::string_view text) {
  return text == "-" || (!text.empty() && text[0] >= '0' && text[0] <= '9');
}

// Three digits that count.
std::string Short(double value, const char* unit) {
  char text[40];
  const int decimals = value < 10 ? 2 : value < 100 ? 1 : 0;
  snprintf(text, sizeof text, "%.*f%s", decimals, value, unit);
  return text;
}

}  // namespace

std::string Table::ToString() const {
  std::vector<size_t> widths;
  std::vector<bool> numbers;
  for (size_t r = 0; r < rows_.size(); ++r) {
    for (size_t c = 0; c < rows_[r].size(); ++c) {
      if (c == widths.size()) {
        widths.push_back(0);
        numbers.push_back(true);
      }
      widths[c] = std::max(widths[c], rows_[r][c].size());
      if (r > 0 && !LooksLikeNumber(rows_[r][c])) numbers[c] = false;
    }
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string space(widths[c] - row[c].size(), ' ');
      if (c > 0) line += "  ";
      line += numbers[c] ? space + row[c] : row[c] + space;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string Printable(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\\') {
      out += "\\\\";
    } else if (byte >= ' ' && byte < 0x7f) {
      out += c;
    } else {
      out.append({'\\', 'x', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
  return out;
}

std::string Count(uint64_t value) {
  if (value < 100'000) return std::to_string(value);
  static constexpr std::array<const char*, 5> kUnits = {"k", "M", "G", "T",
                                                        "P"};
  double left = static_cast<double>(value) / 1000;
  size_t unit = 0;
  while (left >= 999.5 && unit + 1 < kUnits.size()) {
    left /= 1000;
    ++unit;
  }
  return Short(left, kUnits[unit]);
}

std::string Bytes(uint64_t value) {
  if (value < 1024) return std::to_string(value) + " B";
  static constexpr std::array<const char*, 5> kUnits = {" KiB", " MiB", " GiB",
                                                        " TiB", " PiB"};
  double left = static_cast<double>(value) / 1024;
  size_t unit = 0;
  while (left >= 1023.5 && unit + 1 < kUnits.size()) {
    left /= 1024;
    ++unit;
  }
  return Short(left, kUnits[unit]);
}

std::string Time(uint64_t ns) {
  if (ns == 0) return "-";
  const auto value = static_cast<double>(ns);
  if (value < 999.5e3) return Short(value / 1e3, " us");
  if (value < 999.5e6) return Short(value / 1e6, " ms");
  if (value < 119.5e9) return Short(value / 1e9, " s");
  const uint64_t minutes = ns / 60'000'000'000;
  if (minutes < 60) return std::to_string(minutes) + " min";
  if (minutes < 48 * 60) {
    return std::to_string(minutes / 60) + " h " + std::to_string(minutes % 60) +
           " min";
  }
  return std::to_string(minutes / 1440) + " d " +
         std::to_string(minutes / 60 % 24) + " h";
}

}  // namespace kevent::kevctl
