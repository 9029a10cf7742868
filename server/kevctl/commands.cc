// SPDX-License-Identifier: Apache-2.0
#include "server/kevctl/commands.h"

#include <errno.h>
#include <google/protobuf/util/time_util.h>
#include <string.h>

#include <algorithm>
#include <cstdio>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/time/time.h"
#include "server/kevctl/format.h"
#include "server/kevctl/screen.h"

ABSL_FLAG(absl::Duration, interval, absl::Seconds(1),
          "watch: time between two messages");
ABSL_FLAG(uint32_t, count, 0, "watch: how many messages; 0: no end");
ABSL_FLAG(uint32_t, limit, 1000, "lists: how much of them; 0: all");
ABSL_FLAG(std::string, peer, "",
          "connections: an address, a network as 192.0.2.0/24, or unix");
ABSL_FLAG(std::string, state, "", "connections: idle, request or response");
ABSL_FLAG(absl::Duration, min_age, absl::ZeroDuration(),
          "connections: open for at least that long");
ABSL_FLAG(absl::Duration, max_age, absl::InfiniteDuration(),
          "connections: open for at most that long");
ABSL_FLAG(bool, abort, false, "close: resets the connection at once");
ABSL_FLAG(absl::Duration, within, absl::ZeroDuration(),
          "drain: closes what is left then (default: what the server takes to "
          "end)");
ABSL_FLAG(bool, wait, false,
          "drain: until it has drained, however long --timeout is");
ABSL_FLAG(std::string, source, "", "log: server or access; empty: both");
ABSL_FLAG(std::string, level, "debug",
          "log: of the server's own lines, those from this level on");
ABSL_FLAG(std::string, contains, "", "log: lines with this text in them");
ABSL_FLAG(uint32_t, recent, 10, "log: begins with that many recent lines");
ABSL_FLAG(bool, below, false, "purge: and all below it");
ABSL_FLAG(bool, all, false, "purge: everything");
ABSL_FLAG(uint64_t, if_version, 0,
          "apply: only if this version is in force; 0: whichever is");

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
  if (!status.ok()) return Failed(status, invocation.json);
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
  return status.ok() ? kOk : Failed(status, in.json);
}

int Top(const Invocation& in) {
  if (in.json) {
    fprintf(stderr, "kevctl: top is a screen; watch gives the same as JSON\n");
    return kBadUsage;
  }
  v1::GetInfoResponse info;
  auto once = in.client->Context();
  const grpc::Status told = in.client->stub().GetInfo(once.get(), {}, &info);
  if (!told.ok()) return Failed(told, in.json);
  v1::WatchStatsRequest request;
  *request.mutable_interval() = TimeUtil::NanosecondsToDuration(
      absl::ToInt64Nanoseconds(absl::GetFlag(FLAGS_interval)));
  auto context = in.client->StreamContext();
  auto reader = in.client->stub().WatchStats(context.get(), request);
  v1::Stats before;
  v1::Stats now;
  bool asked_to_end = false;
  {
    Screen screen([&] { context->TryCancel(); });
    for (uint64_t number = 0; reader->Read(&now); ++number) {
      // The first one has nothing before it.
      if (number == 0) before = now;
      screen.Show(FormatTop(info, before, now));
      if (ferror(stdout)) context->TryCancel();
      before.Swap(&now);
    }
    asked_to_end = screen.asked_to_end();
  }
  const grpc::Status status = reader->Finish();
  return status.ok() || asked_to_end ? kOk : Failed(status, in.json);
}

int BadValue(const char* what, const std::string& value, const char* may) {
  fprintf(stderr, "kevctl: %s \"%s\": %s\n", what, value.c_str(), may);
  return kBadUsage;
}

std::string Upper(std::string text) {
  for (char& c : text) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return text;
}

// Fetches page after page until `--limit` is reached, and shows them as one.
template <typename Request, typename Response, typename Call, typename Size>
int ShowPages(const Invocation& in, Request request, Call call, Size size) {
  const uint32_t limit = absl::GetFlag(FLAGS_limit);
  Response all;
  do {
    uint32_t page = 1000;
    if (limit > 0) {
      page = std::min(page, limit - static_cast<uint32_t>(size(all)));
    }
    request.set_page_size(page);
    Response response;
    auto context = in.client->Context();
    const grpc::Status status = call(context.get(), request, &response);
    if (!status.ok()) return Failed(status, in.json);
    request.set_page_token(response.next_page_token());
    all.MergeFrom(response);
    all.set_next_page_token(response.next_page_token());
  } while (!request.page_token().empty() &&
           (limit == 0 || static_cast<uint32_t>(size(all)) < limit));
  if (!in.json && !request.page_token().empty()) {
    fprintf(stderr, "kevctl: there are more; see --limit\n");
  }
  return Show(in, grpc::Status::OK, all);
}

int Connections(const Invocation& in) {
  v1::ListConnectionsRequest request;
  request.set_peer(absl::GetFlag(FLAGS_peer));
  if (const std::string state = absl::GetFlag(FLAGS_state); !state.empty()) {
    v1::Connection::State parsed;
    if (!v1::Connection::State_Parse(Upper(state), &parsed)) {
      return BadValue("--state", state, "idle, request or response");
    }
    request.set_state(parsed);
  }
  const absl::Duration min_age = absl::GetFlag(FLAGS_min_age);
  const absl::Duration max_age = absl::GetFlag(FLAGS_max_age);
  if (min_age != absl::ZeroDuration()) {
    *request.mutable_min_age() =
        TimeUtil::NanosecondsToDuration(absl::ToInt64Nanoseconds(min_age));
  }
  if (max_age != absl::InfiniteDuration()) {
    *request.mutable_max_age() =
        TimeUtil::NanosecondsToDuration(absl::ToInt64Nanoseconds(max_age));
  }
  return ShowPages<v1::ListConnectionsRequest, v1::ListConnectionsResponse>(
      in, request,
      [&](auto* context, const auto& r, auto* response) {
        return in.client->stub().ListConnections(context, r, response);
      },
      [](const auto& list) { return list.connections_size(); });
}

int Close(const Invocation& in) {
  v1::CloseConnectionRequest request;
  request.set_id(in.arguments[0]);
  request.set_abort(absl::GetFlag(FLAGS_abort));
  v1::CloseConnectionResponse response;
  auto context = in.client->Context();
  return Show(
      in, in.client->stub().CloseConnection(context.get(), request, &response),
      response);
}

int Drain(const Invocation& in) {
  v1::DrainRequest request;
  const absl::Duration within = absl::GetFlag(FLAGS_within);
  if (within != absl::ZeroDuration()) {
    *request.mutable_timeout() =
        TimeUtil::NanosecondsToDuration(absl::ToInt64Nanoseconds(within));
  }
  request.set_wait(absl::GetFlag(FLAGS_wait));
  v1::DrainResponse response;
  auto context =
      request.wait() ? in.client->StreamContext() : in.client->Context();
  return Show(in, in.client->stub().Drain(context.get(), request, &response),
              response);
}

int Undrain(const Invocation& in) {
  v1::UndrainResponse response;
  auto context = in.client->Context();
  return Show(in, in.client->stub().Undrain(context.get(), {}, &response),
              response);
}

bool ParseLevel(const std::string& text, v1::LogLevel* level) {
  return v1::LogLevel_Parse(Upper(text), level) &&
         *level != v1::LOG_LEVEL_UNSPECIFIED;
}

constexpr char kLevels[] = "debug, info, warning or error";

int SetLogLevel(const Invocation& in) {
  v1::LogLevel level;
  if (!ParseLevel(in.arguments[0], &level)) {
    return BadValue("level", in.arguments[0], kLevels);
  }
  v1::SetLogLevelRequest request;
  request.set_level(level);
  v1::SetLogLevelResponse response;
  auto context = in.client->Context();
  return Show(in,
              in.client->stub().SetLogLevel(context.get(), request, &response),
              response);
}

int TailLog(const Invocation& in) {
  v1::TailLogRequest request;
  if (const std::string source = absl::GetFlag(FLAGS_source); !source.empty()) {
    v1::TailLogRequest::Source parsed;
    if (!v1::TailLogRequest::Source_Parse(Upper(source), &parsed)) {
      return BadValue("--source", source, "server or access");
    }
    request.set_source(parsed);
  }
  v1::LogLevel level;
  if (!ParseLevel(absl::GetFlag(FLAGS_level), &level)) {
    return BadValue("--level", absl::GetFlag(FLAGS_level), kLevels);
  }
  request.set_min_level(level);
  request.set_contains(absl::GetFlag(FLAGS_contains));
  request.set_recent(absl::GetFlag(FLAGS_recent));
  auto context = in.client->StreamContext();
  auto reader = in.client->stub().TailLog(context.get(), request);
  v1::TailLogResponse response;
  while (reader->Read(&response)) {
    Print(in.json ? ToJson(response, true) : Format(response));
    if (ferror(stdout)) context->TryCancel();
  }
  const grpc::Status status = reader->Finish();
  return status.ok() ? kOk : Failed(status, in.json);
}

int Cache(const Invocation& in) {
  v1::ListCacheRequest request;
  if (!in.arguments.empty()) request.set_prefix(in.arguments[0]);
  return ShowPages<v1::ListCacheRequest, v1::ListCacheResponse>(
      in, request,
      [&](auto* context, const auto& r, auto* response) {
        return in.client->stub().ListCache(context, r, response);
      },
      [](const auto& list) { return list.entries_size(); });
}

int Purge(const Invocation& in) {
  v1::PurgeCacheRequest request;
  if (absl::GetFlag(FLAGS_all) == !in.arguments.empty()) {
    fprintf(stderr, "kevctl: purge takes a path, or --all\n");
    return kBadUsage;
  }
  if (absl::GetFlag(FLAGS_all)) {
    request.set_all(true);
  } else if (absl::GetFlag(FLAGS_below)) {
    request.set_prefix(in.arguments[0]);
  } else {
    request.set_path(in.arguments[0]);
  }
  v1::PurgeCacheResponse response;
  auto context = in.client->Context();
  return Show(in,
              in.client->stub().PurgeCache(context.get(), request, &response),
              response);
}

int Queues(const Invocation& in) {
  v1::ListQueuesResponse response;
  auto context = in.client->Context();
  return Show(in, in.client->stub().ListQueues(context.get(), {}, &response),
              response);
}

int Interests(const Invocation& in) {
  uint32_t worker = 0;
  if (!absl::SimpleAtoi(in.arguments[0], &worker)) {
    return BadValue("worker", in.arguments[0], "a number, from 0 on");
  }
  v1::ListInterestsRequest request;
  request.set_worker(worker);
  return ShowPages<v1::ListInterestsRequest, v1::ListInterestsResponse>(
      in, request,
      [&](auto* context, const auto& r, auto* response) {
        return in.client->stub().ListInterests(context, r, response);
      },
      [](const auto& list) { return list.interests_size(); });
}

constexpr size_t kMaxConfig = 1 << 20;

// A file, or "-" for standard input.
bool ReadAll(const std::string& path, std::string* text) {
  FILE* file = path == "-" ? stdin : fopen(path.c_str(), "re");
  if (!file) {
    fprintf(stderr, "kevctl: cannot open %s: %s\n", path.c_str(),
            strerror(errno));
    return false;
  }
  char buffer[4096];
  size_t n;
  while (text->size() <= kMaxConfig &&
         (n = fread(buffer, 1, sizeof buffer, file)) > 0) {
    text->append(buffer, n);
  }
  const bool failed = ferror(file) != 0;
  if (file != stdin) fclose(file);
  if (failed) fprintf(stderr, "kevctl: cannot read %s\n", path.c_str());
  return !failed;
}

bool ParseVersion(const Invocation& in, uint64_t* version) {
  *version = 0;
  if (in.arguments.empty()) return true;
  return absl::SimpleAtoi(in.arguments[0], version) && *version > 0;
}

int Config(const Invocation& in) {
  uint64_t version = 0;
  if (!ParseVersion(in, &version)) {
    return BadValue("version", in.arguments[0], "a number, from 1 on");
  }
  v1::GetConfigRequest request;
  request.set_version(version);
  v1::GetConfigResponse response;
  auto context = in.client->Context();
  return Show(in,
              in.client->stub().GetConfig(context.get(), request, &response),
              response);
}

int Validate(const Invocation& in) {
  v1::ValidateConfigRequest request;
  if (!ReadAll(in.arguments[0], request.mutable_text())) return kBadUsage;
  v1::ValidateConfigResponse response;
  auto context = in.client->Context();
  return Show(
      in, in.client->stub().ValidateConfig(context.get(), request, &response),
      response);
}

int Apply(const Invocation& in) {
  v1::ApplyConfigRequest request;
  if (!ReadAll(in.arguments[0], request.mutable_text())) return kBadUsage;
  request.set_if_version(absl::GetFlag(FLAGS_if_version));
  v1::ApplyConfigResponse response;
  auto context = in.client->Context();
  return Show(in,
              in.client->stub().ApplyConfig(context.get(), request, &response),
              response);
}

int Rollback(const Invocation& in) {
  uint64_t version = 0;
  if (!ParseVersion(in, &version)) {
    return BadValue("version", in.arguments[0], "a number, from 1 on");
  }
  v1::RollbackConfigRequest request;
  request.set_version(version);
  v1::RollbackConfigResponse response;
  auto context = in.client->Context();
  return Show(
      in, in.client->stub().RollbackConfig(context.get(), request, &response),
      response);
}

constexpr Command kCommands[] = {
    {"info", "", "what runs: version, engine, addresses, uptime", 0, 0, Info},
    {"stats", "", "all counters, of each worker and in all", 0, 0, Stats},
    {"watch", "[--interval=1s] [--count=N]",
     "rates, a line for each interval; as JSON the counters, one object a line",
     0, 0, Watch},
    {"top", "[--interval=1s]",
     "the same of each worker, as a live screen; q ends it", 0, 0, Top},
    {"connections",
     "[--peer=ADDR[/BITS]] [--state=STATE] [--min_age=TIME] [--max_age=TIME] "
     "[--limit=N]",
     "clients, newest first within each worker", 0, 0, Connections},
    {"close", "ID [--abort]", "ends a connection", 1, 1, Close},
    {"drain", "[--within=TIME] [--wait]",
     "takes it out of service: no new connections", 0, 0, Drain},
    {"undrain", "", "takes it into service again", 0, 0, Undrain},
    {"log",
     "[--source=server|access] [--level=LEVEL] [--contains=TEXT] [--recent=N]",
     "lines of the log as they come", 0, 0, TailLog},
    {"loglevel", "LEVEL", "debug, info, warning or error", 1, 1, SetLogLevel},
    {"cache", "[PREFIX] [--limit=N]", "what the file caches hold", 0, 1, Cache},
    {"purge", "PATH [--below] | --all", "drops entries from the file caches", 0,
     1, Purge},
    {"queues", "", "the event queue of each worker", 0, 0, Queues},
    {"interests", "WORKER [--limit=N]", "what a worker's queue watches", 1, 1,
     Interests},
    {"config", "[VERSION]", "the configuration in force, or an earlier one", 0,
     1, Config},
    {"validate", "FILE", "checks a configuration; - is standard input", 1, 1,
     Validate},
    {"apply", "FILE [--if_version=N]", "puts a configuration into force", 1, 1,
     Apply},
    {"rollback", "[VERSION]", "puts the one before, or VERSION, into force", 0,
     1, Rollback},
};

}  // namespace

std::span<const Command> Commands() { return kCommands; }

}  // namespace kevent::kevctl
