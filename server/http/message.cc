// SPDX-License-Identifier: Apache-2.0
#include "server/http/message.h"

#include <limits>

namespace kevent::http {
namespace {

// Without a branch for each byte: nearly every text passes.
bool AllOfClass(std::string_view text, uint8_t bits) {
  uint8_t common = bits;
  for (char c : text) common &= internal::kCharClasses[static_cast<uint8_t>(c)];
  return common != 0;
}

}  // namespace

Method ParseMethod(std::string_view name) {
  switch (name.size()) {
    case 3:
      if (name == "GET") return Method::kGet;
      if (name == "PUT") return Method::kPut;
      break;
    case 4:
      if (name == "HEAD") return Method::kHead;
      if (name == "POST") return Method::kPost;
      break;
    case 5:
      if (name == "PATCH") return Method::kPatch;
      if (name == "TRACE") return Method::kTrace;
      break;
    case 6:
      if (name == "DELETE") return Method::kDelete;
      break;
    case 7:
      if (name == "OPTIONS") return Method::kOptions;
      if (name == "CONNECT") return Method::kConnect;
      break;
    default:
      break;
  }
  return Method::kOther;
}

std::string_view MethodName(Method method) {
  switch (method) {
    case Method::kGet:
      return "GET";
    case Method::kHead:
      return "HEAD";
    case Method::kPost:
      return "POST";
    case Method::kPut:
      return "PUT";
    case Method::kDelete:
      return "DELETE";
    case Method::kConnect:
      return "CONNECT";
    case Method::kOptions:
      return "OPTIONS";
    case Method::kTrace:
      return "TRACE";
    case Method::kPatch:
      return "PATCH";
    case Method::kOther:
      break;
  }
  return {};
}

std::string_view ReasonPhrase(int status) {
  for (const internal::Reason& reason : internal::kReasons) {
    if (reason.status == status) return reason.phrase;
  }
  return {};
}

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (internal::ToLower(a[i]) != internal::ToLower(b[i])) return false;
  }
  return true;
}

bool IsToken(std::string_view text) {
  return !text.empty() && AllOfClass(text, internal::kTokenBit);
}

bool IsFieldValue(std::string_view text) {
  return AllOfClass(text, internal::kFieldValueBit);
}

std::string_view TrimOws(std::string_view text) {
  auto is_ows = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && is_ows(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_ows(text.back())) text.remove_suffix(1);
  return text;
}

bool NextListElement(std::string_view* list, std::string_view* element) {
  if (list->data() == nullptr) return false;
  const size_t comma = list->find(',');
  *element = TrimOws(list->substr(0, comma));
  if (comma == std::string_view::npos) {
    *list = {};
  } else {
    list->remove_prefix(comma + 1);
  }
  return true;
}

bool ParseDecimal(std::string_view digits, uint64_t* value) {
  constexpr uint64_t kMax = INT64_MAX;
  if (digits.empty()) return false;
  // So many nines are not too much.
  const bool may_overflow =
      digits.size() > std::numeric_limits<int64_t>::digits10;
  uint64_t result = 0;
  for (char c : digits) {
    if (!internal::IsDigit(c)) return false;
    const uint64_t digit = static_cast<uint64_t>(c - '0');
    if (may_overflow && result > (kMax - digit) / 10) return false;
    result = result * 10 + digit;
  }
  *value = result;
  return true;
}

}  // namespace kevent::http
