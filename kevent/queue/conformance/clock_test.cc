// SPDX-License-Identifier: Apache-2.0
//
// Timers while the time of day is set: in the virtual machine alone.
#include <errno.h>
#include <string.h>
#include <time.h>

#include <cstdlib>

#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

constexpr int64_t kSecond = 1000 * kMs;
constexpr int64_t kHour = 3600 * kSecond;

class ClockTest : public QueueTest {
 protected:
  void SetUp() override {
    if (!getenv("KEVENT_GUEST")) GTEST_SKIP() << "it would set the clock";
    QueueTest::SetUp();
  }
  void TearDown() override {
    Step(-stepped_);
    QueueTest::TearDown();
  }
  void Step(int64_t by_ns) {
    if (by_ns == 0) return;
    const int64_t to = NowNs(CLOCK_REALTIME) + by_ns;
    const timespec time = {to / kSecond, to % kSecond};
    ASSERT_EQ(0, clock_settime(CLOCK_REALTIME, &time)) << strerror(errno);
    stepped_ += by_ns;
  }
  Handle Timer(int64_t first_ns, int64_t interval_ns, uint32_t flags) {
    Interest interest;
    interest.source = Source::kTimer;
    interest.clock = CLOCK_REALTIME;
    interest.first_ns = first_ns;
    interest.interval_ns = interval_ns;
    interest.flags = flags;
    return MustAdd(interest);
  }

 private:
  int64_t stepped_ = 0;
};
KEVENT_CONFORMANCE(ClockTest);

TEST_P(ClockTest, ADelayStaysWhatItIs) {
  for (int64_t step : {kHour, -kHour}) {
    SCOPED_TRACE(step);
    const int64_t start = NowNs();
    const Handle once = Timer(50 * kMs, 0, 0);
    Step(step);
    Entry e = One();
    EXPECT_GE(NowNs() - start, 50 * kMs);
    EXPECT_EQ(e.handle, once);
    EXPECT_EQ(e.data[0], 1u);
    // So does a period.
    const int64_t begin = NowNs();
    const Handle periodic = Timer(20 * kMs, 20 * kMs, 0);
    EXPECT_EQ(One().handle, periodic);
    Step(step);
    uint64_t count = 1;
    while (count < 3) count += One().data[0];
    EXPECT_LE(static_cast<int64_t>(count), (NowNs() - begin) / (20 * kMs));
    EXPECT_EQ(0, queue().Remove(periodic));
  }
  ExpectNothing();
}

TEST_P(ClockTest, ATimeOfDayFollows) {
  const Handle far = Timer(NowNs(CLOCK_REALTIME) + kHour, 0, kAbsolute);
  ExpectNothing();
  Step(kHour);
  EXPECT_EQ(One().handle, far);
  const Handle near = Timer(NowNs(CLOCK_REALTIME) + 50 * kMs, 0, kAbsolute);
  Step(-kHour);
  ExpectNothing(100 * kMs);
  Step(kHour);
  EXPECT_EQ(One().handle, near);
  ExpectNothing();
}

TEST_P(ClockTest, SetAnewItIsOneOrTheOther) {
  const Handle handle = Timer(NowNs(CLOCK_REALTIME) + kHour, 0, kAbsolute);
  const int64_t start = NowNs();
  EXPECT_EQ(0, queue().SetTimer(handle, 50 * kMs, 20 * kMs, false));
  Step(kHour);
  EXPECT_EQ(One().handle, handle);
  EXPECT_GE(NowNs() - start, 50 * kMs);
  EXPECT_EQ(0,
            queue().SetTimer(handle, NowNs(CLOCK_REALTIME) + kHour, 0, true));
  ExpectNothing(50 * kMs);
  Step(kHour);
  Entry e = One();
  EXPECT_EQ(e.handle, handle);
  EXPECT_EQ(e.flags, 0u);
  ExpectNothing();
}

}  // namespace
}  // namespace kevent::conformance
