// SPDX-License-Identifier: Apache-2.0
#include <google/protobuf/util/time_util.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/admin/arguments.h"
#include "server/admin/ask.h"
#include "server/admin/errors.h"
#include "server/admin/lists.h"

namespace kevent::admin {
namespace {

using google::protobuf::util::TimeUtil;

constexpr size_t kAtOnce = 64;  // in one closure; each is a system call

struct Found {
  std::vector<v1::Interest> interests;
  uint32_t index = 0;  // where to go on
};

void Describe(const InterestInfo& from, v1::Interest* to) {
  to->set_id(std::to_string(from.handle.index) + "." +
             std::to_string(from.handle.generation / 2));
  switch (from.source) {
    case Source::kTimer:
      to->set_source(v1::Interest::TIMER);
      *to->mutable_interval() =
          TimeUtil::NanosecondsToDuration(from.interval_ns);
      break;
    case Source::kSignal:
      to->set_source(v1::Interest::SIGNAL);
      to->set_signal(from.fd);
      break;
    case Source::kInode:
      to->set_source(v1::Interest::INODE);
      break;
    default: {
      to->set_source(v1::Interest::POLL);
      to->set_fd(from.fd);
      const std::string link = "/proc/self/fd/" + std::to_string(from.fd);
      std::array<char, 256> file;
      const ssize_t n = readlink(link.c_str(), file.data(), file.size());
      if (n > 0) to->set_file(Ascii({file.data(), static_cast<size_t>(n)}));
    }
  }
  to->set_events(from.events);
  for (auto [flag, name] : {std::pair{kEdge, "edge"},
                            {kOneShot, "one-shot"},
                            {kDispatch, "dispatch"},
                            {kWakeAll, "wake-all"},
                            {kLastCheck, "last-check"},
                            {kDisabled, "disabled"}}) {
    if (from.flags & flag) to->add_flags(name);
  }
  to->set_unread(from.unread);
}

}  // namespace

void ListInterests(const Context& context,
                   const v1::ListInterestsRequest& request,
                   v1::ListInterestsResponse* response, FinishFn finish) {
  auto page = ParsePageSize(request.page_size());
  if (!page.ok()) return finish(page.status());
  const uint32_t number = request.worker();
  const auto& workers = context.target->workers;
  if (number >= workers.size()) {
    const std::string name = std::to_string(number);
    const std::string count = std::to_string(workers.size());
    return finish(NotFound(
        v1::WORKER_NOT_FOUND, "worker", name,
        "there is no worker " + name + ", only " + count + " from 0 on",
        {{"workers", count}}));
  }
  uint32_t index = 0;
  if (const std::string& token = request.page_token(); !token.empty()) {
    const char* end = token.data() + token.size();
    auto [at, error] = std::from_chars(token.data(), end, index);
    if (error != std::errc() || at != end) {
      return finish(InvalidField("page_token", "not one of this list"));
    }
  }
  auto step = [loop = workers[number].loop, want = *page, index,
               begun = false](Found* found) mutable {
    if (!std::exchange(begun, true)) found->index = index;
    std::array<InterestInfo, kAtOnce> some;
    const size_t room = std::min(kAtOnce, want - found->interests.size());
    const size_t n =
        loop->queue().ListInterests(&found->index, {some.data(), room});
    for (size_t i = 0; i < n; ++i) {
      Describe(some[i], &found->interests.emplace_back());
    }
    return found->index != UINT32_MAX && found->interests.size() < want;
  };
  Ask<Found>::Start(
      context.loop, context.mailbox, workers[number].loop, std::move(step),
      [response, number,
       finish = std::move(finish)](std::optional<Found> found) mutable {
        if (!found) return finish(NoAnswer(number));
        for (v1::Interest& interest : found->interests) {
          *response->add_interests() = std::move(interest);
        }
        if (found->index != UINT32_MAX) {
          response->set_next_page_token(std::to_string(found->index));
        }
        finish(absl::OkStatus());
      });
}

}  // namespace kevent::admin
