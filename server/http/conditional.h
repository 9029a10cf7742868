// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_CONDITIONAL_H_
#define SERVER_HTTP_CONDITIONAL_H_

#include <cstdint>
#include <ctime>
#include <optional>
#include <string_view>

#include "server/http/parser.h"

// Conditional requests, RFC 9110 section 13. Stateless, any thread.
namespace kevent::http {

// The validators of the representation that the request selects.
struct Validators {
  // False when the target has no current representation (a PUT that would
  // create it): the other members are ignored then.
  bool exists = true;
  // The entity tag as sent, with quotes and W/ (section 8.8.3); empty: none.
  std::string_view etag;
  // Seconds since 1970; nothing: none.
  std::optional<time_t> last_modified;
};

enum class Precondition : uint8_t {
  kProceed,
  kNotModified,  // answer 304
  kFailed,       // answer 412
};

// Evaluates the preconditions of a request in the order of section 13.2.2,
// without If-Range. To be called only if the response would be 2xx or 412
// without them (section 13.2.1). Malformed dates are as if absent; a malformed
// list of entity tags counts up to where it goes wrong.
Precondition Evaluate(const Request& request, const Validators& validators);

// Whether If-Range lets the Range field stand (section 13.1.5): no such field
// (null data()), or it matches by strong comparison. A date matches if it is
// exactly that of Last-Modified and that second is over: in the same second the
// file may change again unseen (section 8.8.2.2).
bool IfRange(std::string_view if_range, const Validators& validators,
             time_t now);

// An entity-tag as a whole, 'W/"x"' or '"x"' (section 8.8.3).
bool IsEntityTag(std::string_view text);

// Comparison of two entity tags, section 8.8.3.2. Weakly equal ones may be used
// instead of each other; strongly equal ones are the same byte for byte.
bool EtagsMatchWeakly(std::string_view a, std::string_view b);
bool EtagsMatchStrongly(std::string_view a, std::string_view b);

}  // namespace kevent::http

#endif  // SERVER_HTTP_CONDITIONAL_H_
