// SPDX-License-Identifier: Apache-2.0
#include "server/kevctl/commands.h"

#include <google/protobuf/util/time_util.h>

#include <cstdio>

#include "absl/flags/flag.h"
#include "absl/time/time.h"
#include "server/kevctl/format.h"

ABSL_FLAG(absl::Duration, interval, absl::Seconds(1),
          "watch: time between two messages");
ABSL_FLAG(uint32_t, count, 0, "watch: how many messages; 0: no end");

namespace kevent::kevctl {
namespace {

using google::protobuf::util::TimeUtil;

void Print(const std::string& text) {
  fputs(text.c_str(), stdout);
  fflush(stdout);
}

template <typename Message>
int Show(const Invocation& invocation, const grpc::Status& status,
         const Message& message) {
  if (!status.ok()) return Failed(status);
  Print(invocation.json ? ToJson(message, false) : Format(message));
  return kOk;
}

int Info(const Invocation& in) {
  v1::GetInfoResponse info;
  auto context = in.client->Context();
  return Show(in, in.client->stub().GetInfo(context.get(), {}, &info), info);
}

int Stats(const Invocation& in) {
  v1::Stats stats;
  auto context = in.client->Context();
  return Show(in, in.client->stub().GetStats(context.get(), {}, &stats), stats);
}

int Watch(const Invocation& in) {
  v1::WatchStatsRequest request;
  *request.mutable_interval() = TimeUtil::NanosecondsToDuration(
      absl::ToInt64Nanoseconds(absl::GetFlag(FLAGS_interval)));
  // A rate takes two.
  const uint32_t count = absl::GetFlag(FLAGS_count);
  if (count > 0) request.set_count(in.json ? count : count + 1);
  auto context = in.client->StreamContext();
  auto reader = in.client->stub().WatchStats(context.get(), request);
  v1::Stats before;
  v1::Stats now;
  for (uint64_t number = 0; reader->Read(&now); ++number) {
    if (in.json) {
      Print(ToJson(now, true));
    } else if (number > 0) {
      if (number % 20 == 1) Print(RatesHead());
      Print(FormatRates(before, now));
    }
    if (ferror(stdout)) {  // nobody reads on
      context->TryCancel();
      break;
    }
    before.Swap(&now);
  }
  const grpc::Status status = reader->Finish();
  return status.ok() ? kOk : Failed(status);
}

constexpr Command kCommands[] = {
    {"info", "", "what runs: version, engine, addresses, uptime", 0, 0, Info},
    {"stats", "", "all counters, of each worker and in all", 0, 0, Stats},
    {"watch", "[--interval=1s] [--count=N]",
     "rates, a line for each interval; as JSON the counters, one object a line",
     0, 0, Watch},
};

}  // namespace

std::span<const Command> Commands() { return kCommands; }

}  // namespace kevent::kevctl
