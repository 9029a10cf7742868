// SPDX-License-Identifier: Apache-2.0
#include "server/stats/registry.h"

#include <string>

#include "gtest/gtest.h"

namespace kevent::stats {
namespace {

TEST(RegistryTest, KeepsWhatIsAddedInOrder) {
  Registry registry;
  Counter one;
  Counter two;
  Histogram times;
  EXPECT_TRUE(
      registry.AddCounter("orders_total", "Orders.", {&one, &two}).ok());
  EXPECT_TRUE(registry.AddGauge("depth", "Depth.", [] { return 2.5; }).ok());
  EXPECT_TRUE(registry.AddHistogram("wait_seconds", "Waits.", {&times}).ok());
  ASSERT_EQ(registry.metrics().size(), 3u);
  EXPECT_EQ(registry.metrics()[0].name, "orders_total");
  EXPECT_EQ(registry.metrics()[0].help, "Orders.");
  EXPECT_EQ(registry.metrics()[0].counters.size(), 2u);
  EXPECT_EQ(registry.metrics()[1].gauge(), 2.5);
  EXPECT_EQ(registry.metrics()[2].histograms.front(), &times);
}

TEST(RegistryTest, RefusesNames) {
  Registry registry;
  Counter counter;
  for (const std::string& name :
       {std::string(), std::string("a b"), std::string("1a"),
        std::string("a\n"), std::string("kevent_x"), std::string(101, 'a')}) {
    EXPECT_EQ(registry.AddCounter(name, "", {&counter}).code(),
              absl::StatusCode::kInvalidArgument)
        << name;
  }
  EXPECT_TRUE(registry.AddCounter("a", "", {&counter}).ok());
  EXPECT_EQ(registry.AddGauge("a", "", [] { return 1.0; }).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(registry.metrics().size(), 1u);
}

}  // namespace
}  // namespace kevent::stats
