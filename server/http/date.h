// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_DATE_H_
#define SERVER_HTTP_DATE_H_

#include <cstddef>
#include <ctime>
#include <optional>
#include <string_view>

// HTTP-date, RFC 9110 section 5.6.7. No locale and no time zone take part.
namespace kevent::http {

inline constexpr size_t kHttpDateSize = 29;

// Writes `time` (seconds since 1970, UTC) as IMF-fixdate, such as
// "Sun, 06 Nov 1994 08:49:37 GMT", without a terminating NUL. Times outside
// the years 0 to 9999 are taken as the nearest within: the format has no other.
void FormatHttpDate(time_t time, char (&out)[kHttpDateSize]);

// Seconds since 1970 of an HTTP-date in any of its three forms, IMF-fixdate,
// that of RFC 850 and asctime's; nothing when `text` is none or names no
// existing time. The weekday must be one but is not held against the date. A
// two-digit year that would lie more than 50 years after `now` is taken as
// past. Thread-safe.
std::optional<time_t> ParseHttpDate(std::string_view text, time_t now);

// The same with the current time.
std::optional<time_t> ParseHttpDate(std::string_view text);

// Formats a second's date once, for Date fields. Not thread-safe.
class DateCache {
 public:
  // The view holds until the next Get with another second, or the cache's end.
  std::string_view Get(time_t now) {
    if (now != time_ || !filled_) {
      FormatHttpDate(now, text_);
      time_ = now;
      filled_ = true;
    }
    return {text_, kHttpDateSize};
  }

 private:
  time_t time_ = 0;
  bool filled_ = false;
  char text_[kHttpDateSize];
};

}  // namespace kevent::http

#endif  // SERVER_HTTP_DATE_H_
