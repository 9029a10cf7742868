// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_METRICS_H_
#define SERVER_ADMIN_METRICS_H_

#include <string>

#include "proto/kevent/admin/v1/admin.pb.h"

namespace kevent::admin {

std::string MetricsText(const v1::Stats& stats, bool draining);
// In Prometheus' text format, version 0.0.4; docs/operations.md lists the
// names. Latencies in one bucket for each power of two.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_METRICS_H_
