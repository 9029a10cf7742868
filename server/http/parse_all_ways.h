// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_PARSE_ALL_WAYS_H_
#define SERVER_HTTP_PARSE_ALL_WAYS_H_

#include <string>
#include <string_view>

#include "server/http/exact.h"
#include "server/http/parser.h"

namespace kevent::http {

std::string Describe(const Request& r);
// What a request is, with texts of its own.

ParseResult ParseAllWays(std::string_view text, const Limits& limits,
                         Request* request);
// The outcome for the whole text, after checking that every prefix and every
// way of arriving in two parts or byte by byte has the same. The request's
// views are into `text`.

Request Good(std::string_view text, const Limits& limits = Limits());
// The request that `text` must be.

int Status(std::string_view text, const Limits& limits = Limits());
// The status that `text` must be refused with.

}  // namespace kevent::http

#endif  // SERVER_HTTP_PARSE_ALL_WAYS_H_
