// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_STATS_MESSAGE_H_
#define SERVER_ADMIN_STATS_MESSAGE_H_

#include <cstdint>
#include <string>

#include "proto/kevent/admin/v1/admin.pb.h"
#include "server/admin/sampler.h"
#include "server/admin/target.h"
#include "server/stats/histogram.h"

namespace kevent::admin {

void EncodeStats(const Target& target, const Sample& sample, int64_t start_ns,
                 int64_t now_ns, std::string* to);
// Makes `to` a v1::Stats in protobuf's wire format, from `sample`, and from the
// counters as they are now. `start_ns`, `now_ns`: of CLOCK_MONOTONIC.
//
// By hand, because who watches wants that ten times a second, on the processor
// of a worker: the generated classes touch four times as many pages of code and
// memory, which by then have left every cache.

void FillStats(const Target& target, const Sample& sample, int64_t start_ns,
               int64_t now_ns, v1::Stats* to);
// The same as a message.

void FillHistogram(const stats::HistogramSnapshot& snapshot, v1::Histogram* to);

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_STATS_MESSAGE_H_
