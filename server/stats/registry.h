// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_STATS_REGISTRY_H_
#define SERVER_STATS_REGISTRY_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/stats/counters.h"
#include "server/stats/histogram.h"

namespace kevent::stats {

class Registry {
 public:
  struct Metric {
    std::string name;
    std::string help;
    // One of these.
    std::vector<const Counter*> counters;
    std::function<double()> gauge;
    std::vector<const Histogram*> histograms;
  };

  absl::Status AddCounter(std::string_view name, std::string_view help,
                          std::vector<const Counter*> counters);
  // A number that only grows: the sum of `counters`, one for each thread that
  // counts. They must outlive every reader of the registry.

  absl::Status AddGauge(std::string_view name, std::string_view help,
                        std::function<double()> gauge);
  // A number that rises and falls. Called from any thread.

  absl::Status AddHistogram(std::string_view name, std::string_view help,
                            std::vector<const Histogram*> histograms);
  // Of times, in nanoseconds. As AddCounter.

  const std::vector<Metric>& metrics() const { return metrics_; }

 private:
  absl::Status Add(Metric metric);

  std::vector<Metric> metrics_;
};
// What a service counts for itself, for the admin service to show. Names are
// those of Prometheus: [a-zA-Z_][a-zA-Z0-9_]*, at most 100 characters, and not
// beginning with "kevent_", which is ours; InvalidArgument for others,
// AlreadyExists for a name given twice. Filled before it is shared, and
// read-only from then on.

}  // namespace kevent::stats

#endif  // SERVER_STATS_REGISTRY_H_
