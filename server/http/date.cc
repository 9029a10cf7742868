// SPDX-License-Identifier: Apache-2.0
#include "server/http/date.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "server/http/message.h"

namespace kevent::http {
namespace {

constexpr char kDays[] = "SunMonTueWedThuFriSat";
constexpr char kMonths[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
constexpr std::string_view kLongDays[] = {
    "Sunday",   "Monday", "Tuesday",  "Wednesday",
    "Thursday", "Friday", "Saturday",
};

constexpr int64_t kDaySeconds = 24 * 60 * 60;
constexpr int64_t kFirstTime = -62167219200;  // 0000-01-01T00:00:00Z
constexpr int64_t kLastTime = 253402300799;   // 9999-12-31T23:59:59Z

struct Date {
  int64_t year;
  int month;  // 1 to 12
  int day;    // 1 to 31
};

// The proleptic Gregorian calendar in eras of 400 years that begin on 1 March,
// so that the leap day is a year's last.
constexpr int64_t kDaysTo1970 = 719468;
constexpr int64_t kEraDays = 146097;

int64_t DaysFromDate(Date d) {
  const int64_t year = d.year - (d.month <= 2 ? 1 : 0);
  const int64_t era = (year >= 0 ? year : year - 399) / 400;
  const int64_t year_of_era = year - era * 400;
  const int64_t month = (d.month + 9) % 12;
  const int64_t day_of_year = (153 * month + 2) / 5 + d.day - 1;
  const int64_t day_of_era =
      year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * kEraDays + day_of_era - kDaysTo1970;
}

Date DateFromDays(int64_t days) {
  days += kDaysTo1970;
  const int64_t era = (days >= 0 ? days : days - (kEraDays - 1)) / kEraDays;
  const int64_t day_of_era = days - era * kEraDays;
  const int64_t year_of_era = (day_of_era - day_of_era / 1460 +
                               day_of_era / 36524 - day_of_era / 146096) /
                              365;
  const int64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t month = (5 * day_of_year + 2) / 153;
  Date d;
  d.day = static_cast<int>(day_of_year - (153 * month + 2) / 5 + 1);
  d.month = static_cast<int>(month < 10 ? month + 3 : month - 9);
  d.year = year_of_era + era * 400 + (d.month <= 2 ? 1 : 0);
  return d;
}

int DaysInMonth(int64_t year, int month) {
  if (month == 2) {
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28;
  }
  return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

void PutTwo(char* out, int64_t number) {
  out[0] = static_cast<char>('0' + number / 10);
  out[1] = static_cast<char>('0' + number % 10);
}

// Takes the parts of a date off the front of a text; the first part that does
// not fit makes it fail for good.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  void Literal(std::string_view expected) {
    if (text_.substr(0, expected.size()) == expected) {
      text_.remove_prefix(expected.size());
    } else {
      failed_ = true;
    }
  }

  int Digits(size_t count) {
    if (text_.size() < count) {
      failed_ = true;
      return 0;
    }
    int number = 0;
    for (char c : text_.substr(0, count)) {
      if (!internal::IsDigit(c)) failed_ = true;
      number = number * 10 + (c - '0');
    }
    text_.remove_prefix(count);
    return failed_ ? 0 : number;
  }

  // The day of asctime: two digits, or a space and one.
  int PaddedDay() {
    if (text_.empty() || text_.front() != ' ') return Digits(2);
    text_.remove_prefix(1);
    return Digits(1);
  }

  // The index of the next three letters in a string of such names.
  int Name(std::string_view names) {
    if (text_.size() >= 3) {
      for (size_t i = 0; i < names.size(); i += 3) {
        if (text_.substr(0, 3) == names.substr(i, 3)) {
          text_.remove_prefix(3);
          return static_cast<int>(i / 3);
        }
      }
    }
    failed_ = true;
    return 0;
  }

  bool Complete() const { return !failed_ && text_.empty(); }

 private:
  std::string_view text_;
  bool failed_ = false;
};

struct Clock {
  int hour;
  int minute;
  int second;
};

Clock ReadClock(Reader* in) {
  Clock c;
  c.hour = in->Digits(2);
  in->Literal(":");
  c.minute = in->Digits(2);
  in->Literal(":");
  c.second = in->Digits(2);
  return c;
}

std::optional<time_t> ToTime(Date d, Clock c) {
  // A leap second (60) is the first of the next minute.
  if (d.day < 1 || d.day > DaysInMonth(d.year, d.month) || c.hour > 23 ||
      c.minute > 59 || c.second > 60) {
    return std::nullopt;
  }
  return DaysFromDate(d) * kDaySeconds + c.hour * 3600 + c.minute * 60 +
         c.second;
}

// "Sun, 06 Nov 1994 08:49:37 GMT"
std::optional<time_t> ParseFixdate(std::string_view text) {
  Reader in(text);
  Date d;
  in.Name(kDays);
  in.Literal(", ");
  d.day = in.Digits(2);
  in.Literal(" ");
  d.month = in.Name(kMonths) + 1;
  in.Literal(" ");
  d.year = in.Digits(4);
  in.Literal(" ");
  const Clock c = ReadClock(&in);
  in.Literal(" GMT");
  if (!in.Complete()) return std::nullopt;
  return ToTime(d, c);
}

// "Sunday, 06-Nov-94 08:49:37 GMT"
std::optional<time_t> ParseRfc850(std::string_view text, time_t now) {
  const size_t comma = text.find(',');
  if (comma == std::string_view::npos ||
      std::find(std::begin(kLongDays), std::end(kLongDays),
                text.substr(0, comma)) == std::end(kLongDays)) {
    return std::nullopt;
  }
  Reader in(text.substr(comma));
  Date d;
  in.Literal(", ");
  d.day = in.Digits(2);
  in.Literal("-");
  d.month = in.Name(kMonths) + 1;
  in.Literal("-");
  const int two_digits = in.Digits(2);
  in.Literal(" ");
  const Clock c = ReadClock(&in);
  in.Literal(" GMT");
  if (!in.Complete()) return std::nullopt;
  // The year of those two digits in (now - 50, now + 50].
  const int64_t today = std::clamp<int64_t>(now, kFirstTime, kLastTime);
  const int64_t year = DateFromDays(today / kDaySeconds).year;
  d.year = year - year % 100 + two_digits;
  if (d.year > year + 50) d.year -= 100;
  if (d.year <= year - 50) d.year += 100;
  return ToTime(d, c);
}

// "Sun Nov  6 08:49:37 1994"
std::optional<time_t> ParseAsctime(std::string_view text) {
  Reader in(text);
  Date d;
  in.Name(kDays);
  in.Literal(" ");
  d.month = in.Name(kMonths) + 1;
  in.Literal(" ");
  d.day = in.PaddedDay();
  in.Literal(" ");
  const Clock c = ReadClock(&in);
  in.Literal(" ");
  d.year = in.Digits(4);
  if (!in.Complete()) return std::nullopt;
  return ToTime(d, c);
}

}  // namespace

void FormatHttpDate(time_t time, char (&out)[kHttpDateSize]) {
  const int64_t seconds = std::clamp<int64_t>(time, kFirstTime, kLastTime);
  int64_t days = seconds / kDaySeconds;
  int64_t second = seconds % kDaySeconds;
  if (second < 0) {
    second += kDaySeconds;
    --days;
  }
  const Date d = DateFromDays(days);
  // 1 January 1970 was a Thursday.
  const int64_t weekday = ((days + 4) % 7 + 7) % 7;
  std::memcpy(out, "ddd, dd mmm yyyy hh:mm:ss GMT", kHttpDateSize);
  std::memcpy(out, kDays + 3 * weekday, 3);
  PutTwo(out + 5, d.day);
  std::memcpy(out + 8, kMonths + 3 * (d.month - 1), 3);
  PutTwo(out + 12, d.year / 100);
  PutTwo(out + 14, d.year % 100);
  PutTwo(out + 17, second / 3600);
  PutTwo(out + 20, second / 60 % 60);
  PutTwo(out + 23, second % 60);
}

std::optional<time_t> ParseHttpDate(std::string_view text, time_t now) {
  if (text.size() == kHttpDateSize && text[3] == ',') return ParseFixdate(text);
  if (text.size() > 3 && text[3] == ' ') return ParseAsctime(text);
  return ParseRfc850(text, now);
}

std::optional<time_t> ParseHttpDate(std::string_view text) {
  return ParseHttpDate(text, std::time(nullptr));
}

}  // namespace kevent::http
