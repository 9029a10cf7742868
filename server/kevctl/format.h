// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_KEVCTL_FORMAT_H_
#define SERVER_KEVCTL_FORMAT_H_

#include <google/protobuf/message.h>

#include <cstdint>
#include <string>

#include "proto/kevent/admin/v1/admin.pb.h"

namespace kevent::kevctl {

namespace v1 = admin::v1;

std::string ToJson(const google::protobuf::Message& message, bool one_line);
// All fields, zeroes included, by the names of the .proto; ends in a newline.

// What the calls answer, for people; each ends in a newline.
std::string Format(const v1::GetInfoResponse& info);
std::string Format(const v1::Stats& stats);
std::string Format(const v1::ListConnectionsResponse& list);
std::string Format(const v1::CloseConnectionResponse& closed);
std::string Format(const v1::DrainResponse& drain);
std::string Format(const v1::UndrainResponse& undrain);
std::string Format(const v1::SetLogLevelResponse& level);
std::string Format(const v1::TailLogResponse& lines);
std::string Format(const v1::ListCacheResponse& list);
std::string Format(const v1::PurgeCacheResponse& purged);
std::string Format(const v1::ListQueuesResponse& list);
std::string Format(const v1::ListInterestsResponse& list);
std::string Format(const v1::GetConfigResponse& config);
std::string Format(const v1::ValidateConfigResponse& check);
std::string Format(const v1::ApplyConfigResponse& applied);
std::string Format(const v1::RollbackConfigResponse& applied);

struct Rates {
  double requests = 0;  // each second
  double bytes = 0;
  double errors = 0;  // 5xx, and responses that did not go out whole
  double entries = 0;
  double wakes = 0;
  uint64_t p50_ns = 0;  // of the responses of the time between
  uint64_t p99_ns = 0;
};

Rates RatesOf(const v1::WorkerStats& before, const v1::WorkerStats& now,
              double seconds);
// Counters that fell (the server was started anew) count as having stood still.

uint64_t Percentile(const v1::Histogram& before, const v1::Histogram& now,
                    double fraction);
// Of what came between the two, in nanoseconds; 0 if that is nothing.

double SecondsBetween(const v1::Stats& before, const v1::Stats& now);
// By the server's uptime; never 0.

std::string FormatTop(const v1::GetInfoResponse& info, const v1::Stats& before,
                      const v1::Stats& now);
// A screen of `top`: what each worker did between two messages.

std::string RatesHead();
std::string FormatRates(const v1::Stats& before, const v1::Stats& now);
// A line of what happened between two messages, and the heads above it.

}  // namespace kevent::kevctl

#endif  // SERVER_KEVCTL_FORMAT_H_
