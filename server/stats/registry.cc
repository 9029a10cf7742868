// SPDX-License-Identifier: Apache-2.0
#include "server/stats/registry.h"

#include <utility>

namespace kevent::stats {
namespace {

constexpr size_t kMaxName = 100;

bool IsName(std::string_view name) {
  if (name.empty() || name.size() > kMaxName) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool letter =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    if (!letter && (i == 0 || c < '0' || c > '9')) return false;
  }
  return true;
}

}  // namespace

absl::Status Registry::Add(Metric metric) {
  if (!IsName(metric.name) || metric.name.starts_with("kevent_")) {
    return absl::InvalidArgumentError("\"" + metric.name +
                                      "\" is no name for a metric");
  }
  for (const Metric& other : metrics_) {
    if (other.name == metric.name) {
      return absl::AlreadyExistsError("there is a metric " + metric.name);
    }
  }
  metrics_.push_back(std::move(metric));
  return absl::OkStatus();
}

absl::Status Registry::AddCounter(std::string_view name, std::string_view help,
                                  std::vector<const Counter*> counters) {
  Metric metric = {std::string(name), std::string(help), {}, {}, {}};
  metric.counters = std::move(counters);
  return Add(std::move(metric));
}

absl::Status Registry::AddGauge(std::string_view name, std::string_view help,
                                std::function<double()> gauge) {
  Metric metric = {std::string(name), std::string(help), {}, {}, {}};
  metric.gauge = std::move(gauge);
  return Add(std::move(metric));
}

absl::Status Registry::AddHistogram(std::string_view name,
                                    std::string_view help,
                                    std::vector<const Histogram*> histograms) {
  Metric metric = {std::string(name), std::string(help), {}, {}, {}};
  metric.histograms = std::move(histograms);
  return Add(std::move(metric));
}

}  // namespace kevent::stats
