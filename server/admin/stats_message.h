// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_STATS_MESSAGE_H_
#define SERVER_ADMIN_STATS_MESSAGE_H_

#include <cstdint>

#include "proto/kevent/admin/v1/admin.pb.h"
#include "server/admin/sampler.h"
#include "server/admin/target.h"
#include "server/stats/histogram.h"

namespace kevent::admin {

void FillHistogram(const stats::HistogramSnapshot& snapshot, v1::Histogram* to);

void FillStats(const Target& target, const Sample& sample, int64_t start_ns,
               int64_t now_ns, v1::Stats* to);
// From `sample`, and from the counters as they are now. `start_ns`, `now_ns`:
// of CLOCK_MONOTONIC.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_STATS_MESSAGE_H_
