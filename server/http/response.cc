// SPDX-License-Identifier: Apache-2.0
#include "server/http/response.h"

#include <array>
#include <charconv>

#include "server/http/message.h"

namespace kevent::http {
namespace {

constexpr int kFirstStatus = 100;
constexpr int kLastStatus = 599;

// Calls put(text) for the parts of the status line, or the page, of one status.
template <typename Put>
constexpr void MakeStatusLine(std::string_view code, std::string_view phrase,
                              Put put) {
  put("HTTP/1.1 ");
  put(code);
  put(" ");
  put(phrase);
  put("\r\n");
}

template <typename Put>
constexpr void MakePage(std::string_view code, std::string_view phrase,
                        Put put) {
  put("<!DOCTYPE html>\n<html lang=\"en\"><head><title>");
  put(code);
  put(" ");
  put(phrase);
  put("</title></head>\n<body><h1>");
  put(code);
  put(" ");
  put(phrase);
  put("</h1></body></html>\n");
}

// Every status' line and page one behind the other, and where each begins: put
// together by the compiler.
template <typename Put>
constexpr void MakeAll(Put put) {
  for (const internal::Reason& reason : internal::kReasons) {
    const char digits[] = {static_cast<char>('0' + reason.status / 100),
                           static_cast<char>('0' + reason.status / 10 % 10),
                           static_cast<char>('0' + reason.status % 10)};
    const std::string_view code(digits, 3);
    MakeStatusLine(code, reason.phrase, [&](std::string_view text) {
      put(reason.status, /*page=*/false, text);
    });
    if (reason.status < 400) continue;
    MakePage(code, reason.phrase, [&](std::string_view text) {
      put(reason.status, /*page=*/true, text);
    });
  }
}

constexpr size_t TextSize() {
  size_t size = 0;
  MakeAll([&size](int, bool, std::string_view text) { size += text.size(); });
  return size;
}

struct Texts {
  struct Piece {
    uint16_t begin = 0;
    uint16_t size = 0;
  };

  std::array<char, TextSize()> text{};
  std::array<Piece, kLastStatus - kFirstStatus + 1> lines{};
  std::array<Piece, kLastStatus - kFirstStatus + 1> pages{};
};

constexpr Texts MakeTexts() {
  static_assert(TextSize() <= UINT16_MAX);
  Texts texts;
  size_t used = 0;
  MakeAll([&](int status, bool page, std::string_view text) {
    Texts::Piece& piece =
        (page ? texts.pages : texts.lines)[status - kFirstStatus];
    if (piece.size == 0) piece.begin = static_cast<uint16_t>(used);
    piece.size = static_cast<uint16_t>(piece.size + text.size());
    for (char c : text) texts.text[used++] = c;
  });
  return texts;
}

constexpr Texts kTexts = MakeTexts();

std::string_view Text(const decltype(Texts::lines)& pieces, int status) {
  if (status < kFirstStatus || status > kLastStatus) return {};
  const Texts::Piece piece = pieces[status - kFirstStatus];
  return {kTexts.text.data() + piece.begin, piece.size};
}

}  // namespace

std::string_view StatusLine(int status) { return Text(kTexts.lines, status); }

std::string_view ErrorBody(int status) { return Text(kTexts.pages, status); }

void ResponseHead::Status(int status) {
  const std::string_view line = StatusLine(status);
  if (!line.empty()) return AppendRaw(line);
  if (status < 100 || status > 999) return Fail();
  // RFC 9112 section 4: the space stays though there is no reason phrase.
  char digits[3];
  std::to_chars(digits, digits + 3, status);
  AppendRaw("HTTP/1.1 ");
  AppendRaw({digits, 3});
  AppendRaw(" \r\n");
}

void ResponseHead::Append(std::string_view name, std::string_view value) {
  if (static_cast<size_t>(end_ - out_) < name.size() + value.size() + 4 ||
      !IsToken(name) || !IsFieldValue(value)) {
    return Fail();
  }
  char* p = out_;
  p += name.copy(p, name.size());
  *p++ = ':';
  *p++ = ' ';
  p += value.copy(p, value.size());
  *p++ = '\r';
  *p++ = '\n';
  out_ = p;
}

void ResponseHead::Append(std::string_view name, uint64_t value) {
  char digits[20];
  const char* end = std::to_chars(digits, digits + sizeof(digits), value).ptr;
  Append(name, std::string_view(digits, static_cast<size_t>(end - digits)));
}

std::string_view WriteErrorResponse(std::span<char> buffer,
                                    const ErrorResponse& error) {
  const std::string_view body = ErrorBody(error.status);
  if (body.empty()) return {};
  ResponseHead head(buffer);
  head.Status(error.status);
  if (!error.date.empty()) head.Append("Date", error.date);
  head.AppendRaw("Content-Type: text/html\r\n");
  head.Append("Content-Length", body.size());
  if (!error.keep_alive) {
    head.AppendRaw("Connection: close\r\n");
  } else if (error.version_1_0) {
    head.AppendRaw("Connection: keep-alive\r\n");
  }
  head.AppendRaw(error.extra_fields);
  head.AppendRaw("\r\n");
  if (!error.head) head.AppendRaw(body);
  return head.failed() ? std::string_view()
                       : std::string_view(buffer.data(), head.size());
}

}  // namespace kevent::http
