// SPDX-License-Identifier: Apache-2.0
#include "server/http/conditional.h"

#include "server/http/date.h"

namespace kevent::http {
namespace {

using internal::HasClass;

bool IsWeak(std::string_view etag) { return etag.substr(0, 2) == "W/"; }

std::string_view Opaque(std::string_view etag) {
  return IsWeak(etag) ? etag.substr(2) : etag;
}

// The size of the entity-tag that `text` begins with, 0 if it begins with none.
// Entity tags may hold commas, so a list of them cannot be split first.
size_t EntityTagSize(std::string_view text) {
  size_t i = IsWeak(text) ? 2 : 0;
  if (i == text.size() || text[i] != '"') return 0;
  ++i;
  while (i < text.size() && HasClass(text[i], internal::kEtagBit)) ++i;
  return i < text.size() && text[i] == '"' ? i + 1 : 0;
}

using Comparison = bool (*)(std::string_view, std::string_view);

// Whether one tag in the list matches, by the comparison given.
bool ListMatches(std::string_view list, std::string_view etag,
                 Comparison match) {
  for (;;) {
    list = TrimOws(list);
    if (list.empty()) return false;
    if (list.front() == ',') {
      list.remove_prefix(1);
      continue;
    }
    const size_t size = EntityTagSize(list);
    if (size == 0) return false;
    const std::string_view candidate = list.substr(0, size);
    list = TrimOws(list.substr(size));
    if (!list.empty() && list.front() != ',') return false;
    if (match(candidate, etag)) return true;
  }
}

// Whether If-Match or If-None-Match names the current representation; the
// lines of a repeated field are one list (RFC 9110 section 5.3).
bool FieldMatches(const Request& request, std::string_view name,
                  const Validators& validators, Comparison match) {
  if (!validators.exists) return false;
  return !request.ForEachNamed(name, [&](std::string_view value) {
    const bool matches =
        value == "*" || (!validators.etag.empty() &&
                         ListMatches(value, validators.etag, match));
    return !matches;
  });
}

}  // namespace

bool IsEntityTag(std::string_view text) {
  return !text.empty() && EntityTagSize(text) == text.size();
}

bool EtagsMatchWeakly(std::string_view a, std::string_view b) {
  return Opaque(a) == Opaque(b);
}

bool EtagsMatchStrongly(std::string_view a, std::string_view b) {
  return !IsWeak(a) && a == b;
}

Precondition Evaluate(const Request& request, const Validators& validators) {
  const bool if_match = request.if_match.data() != nullptr;
  const bool if_none_match = request.if_none_match.data() != nullptr;
  const bool if_modified_since = request.if_modified_since.data() != nullptr;
  const bool if_unmodified_since =
      request.if_unmodified_since.data() != nullptr;
  if (!if_match && !if_none_match && !if_modified_since &&
      !if_unmodified_since) {
    return Precondition::kProceed;
  }
  // Section 13.2.1: these select no representation.
  if (request.method == Method::kConnect ||
      request.method == Method::kOptions || request.method == Method::kTrace) {
    return Precondition::kProceed;
  }
  const bool dated = validators.exists && validators.last_modified.has_value();

  // Steps 1 and 2.
  if (if_match) {
    if (!FieldMatches(request, "if-match", validators, EtagsMatchStrongly)) {
      return Precondition::kFailed;
    }
  } else if (if_unmodified_since && dated) {
    const std::optional<time_t> date =
        ParseHttpDate(request.if_unmodified_since);
    if (date.has_value() && *validators.last_modified > *date) {
      return Precondition::kFailed;
    }
  }

  // Steps 3 and 4.
  const bool reads =
      request.method == Method::kGet || request.method == Method::kHead;
  if (if_none_match) {
    if (FieldMatches(request, "if-none-match", validators, EtagsMatchWeakly)) {
      return reads ? Precondition::kNotModified : Precondition::kFailed;
    }
  } else if (if_modified_since && reads && dated) {
    const std::optional<time_t> date = ParseHttpDate(request.if_modified_since);
    if (date.has_value() && *validators.last_modified <= *date) {
      return Precondition::kNotModified;
    }
  }
  return Precondition::kProceed;
}

bool IfRange(std::string_view if_range, const Validators& validators,
             time_t now) {
  if (if_range.data() == nullptr) return true;
  if (!validators.exists) return false;
  if (IsEntityTag(if_range)) {
    return !validators.etag.empty() &&
           EtagsMatchStrongly(if_range, validators.etag);
  }
  if (!validators.last_modified.has_value()) return false;
  const std::optional<time_t> date = ParseHttpDate(if_range, now);
  return date.has_value() && *date == *validators.last_modified && *date < now;
}

}  // namespace kevent::http
