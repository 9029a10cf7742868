// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_MESSAGE_H_
#define SERVER_HTTP_MESSAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

// The vocabulary that requests and responses share. Everything here is free of
// state, safe for any thread, and allocates nothing.
namespace kevent::http {

// RFC 9110 section 9.3 and RFC 5789 (PATCH). kOther is any other token: the
// parser keeps its spelling, whether it is supported is the router's business.
enum class Method : uint8_t {
  kGet,
  kHead,
  kPost,
  kPut,
  kDelete,
  kConnect,
  kOptions,
  kTrace,
  kPatch,
  kOther,
};

// Method names are case-sensitive (RFC 9110 section 9.1): "get" is kOther.
Method ParseMethod(std::string_view name);

// The name on the wire; empty for kOther.
std::string_view MethodName(Method method);

// The reason phrase of a registered status code (RFC 9110 section 15, RFC 6585,
// RFC 8297 and the IANA registry), empty for any other number.
std::string_view ReasonPhrase(int status);

// One field line. Both views lie in the buffer the message was parsed from;
// `value` is without the whitespace around it (RFC 9112 section 5.1).
struct Field {
  std::string_view name;
  std::string_view value;
};

// ASCII only, whatever the locale.
bool EqualsIgnoreCase(std::string_view a, std::string_view b);

// 1*tchar (RFC 9110 section 5.6.2).
bool IsToken(std::string_view text);

// May stand as a field value: no CTL other than HTAB (RFC 9110 section 5.5).
// CR, LF and NUL in a value are what splits messages.
bool IsFieldValue(std::string_view text);

// `text` without the spaces and tabs at its ends (OWS, RFC 9110 5.6.3).
std::string_view TrimOws(std::string_view text);

// Takes the next element off a comma-separated list (RFC 9110 section 5.6.1)
// into `element`, trimmed; false at the end. An empty element is returned as
// such. Commas in quoted strings split too: meant for lists of tokens.
// `list` must begin as a whole field value; a null view is its end mark.
bool NextListElement(std::string_view* list, std::string_view* element);

// 1*DIGIT into `value`; false on anything else and above 2^63 - 1, so that the
// number also fits off_t.
bool ParseDecimal(std::string_view digits, uint64_t* value);

namespace internal {

struct Reason {
  int status;
  std::string_view phrase;
};

inline constexpr Reason kReasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {103, "Early Hints"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {203, "Non-Authoritative Information"},
    {204, "No Content"},
    {205, "Reset Content"},
    {206, "Partial Content"},
    {300, "Multiple Choices"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {407, "Proxy Authentication Required"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {425, "Too Early"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {451, "Unavailable For Legal Reasons"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
    {511, "Network Authentication Required"},
};

// The classes of octets the grammar is made of, one bit each.
inline constexpr uint8_t kTokenBit = 1;       // tchar, RFC 9110 5.6.2
inline constexpr uint8_t kFieldValueBit = 2;  // field-vchar, SP, HTAB, 5.5
inline constexpr uint8_t kTargetBit = 4;      // VCHAR other than '#' and '?'
inline constexpr uint8_t kRegNameBit = 8;  // reg-name less '%', RFC 3986 3.2.2
inline constexpr uint8_t kHexBit = 16;
inline constexpr uint8_t kEtagBit = 32;  // etagc, RFC 9110 8.8.3

constexpr std::array<uint8_t, 256> MakeCharClasses() {
  std::array<uint8_t, 256> classes{};
  auto add = [&classes](std::string_view chars, uint8_t bits) {
    for (char c : chars) classes[static_cast<uint8_t>(c)] |= bits;
  };
  for (int c = 0; c < 256; ++c) {
    if (c == '\t' || (c >= 0x20 && c != 0x7f)) classes[c] |= kFieldValueBit;
    if (c > 0x20 && c < 0x7f && c != '#' && c != '?') {
      classes[c] |= kTargetBit;
    }
    if (c > 0x20 && c != '"' && c != 0x7f) classes[c] |= kEtagBit;
  }
  constexpr std::string_view kDigits = "0123456789";
  constexpr std::string_view kAlpha =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  add(kDigits, kTokenBit | kRegNameBit | kHexBit);
  add(kAlpha, kTokenBit | kRegNameBit);
  add("abcdefABCDEF", kHexBit);
  add("!#$%&'*+-.^_`|~", kTokenBit);
  add("-._~!$&'()*+,;=", kRegNameBit);
  return classes;
}

inline constexpr std::array<uint8_t, 256> kCharClasses = MakeCharClasses();

inline bool HasClass(char c, uint8_t bits) {
  return (kCharClasses[static_cast<uint8_t>(c)] & bits) != 0;
}

inline char ToLower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}

inline bool IsDigit(char c) { return c >= '0' && c <= '9'; }

}  // namespace internal
}  // namespace kevent::http

#endif  // SERVER_HTTP_MESSAGE_H_
