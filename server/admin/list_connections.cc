// SPDX-License-Identifier: Apache-2.0
#include <google/protobuf/util/time_util.h>
#include <sys/socket.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/admin/arguments.h"
#include "server/admin/ask.h"
#include "server/admin/errors.h"
#include "server/admin/lists.h"
#include "server/net/address.h"

namespace kevent::admin {
namespace {

using google::protobuf::util::TimeUtil;
using Info = http::HttpServer::ConnectionInfo;
using State = http::HttpServer::ConnectionState;
using Verdict = http::HttpServer::Verdict;
using Walk = http::HttpServer::Walk;

constexpr int64_t kMaxAge = int64_t{100} * 365 * 86400 * 1'000'000'000;
// In one closure: connections that are looked at closely, at the cost of a
// system call, and those that are passed over.
constexpr size_t kCloseLooks = 128;
constexpr size_t kLooks = 4096;

struct Filter {
  PeerFilter peer;
  v1::Connection::State state = v1::Connection::STATE_UNSPECIFIED;
  int64_t min_age_ns = 0;
  int64_t max_age_ns = INT64_MAX;
};

struct Found {
  std::vector<v1::Connection> connections;
  bool more = false;
  uint64_t last = 0;  // id of the last that was looked at
};

v1::Connection::State StateOf(State state) {
  switch (state) {
    case State::kIdle:
      return v1::Connection::IDLE;
    case State::kRequest:
      return v1::Connection::REQUEST;
    case State::kResponse:
      return v1::Connection::RESPONSE;
  }
  return v1::Connection::STATE_UNSPECIFIED;
}

// In the worker's loop. True if it is on the list.
bool Describe(const Info& info, const Filter& filter, uint32_t worker,
              v1::Connection* to) {
  const v1::Connection::State state = StateOf(info.state);
  if (filter.state != v1::Connection::STATE_UNSPECIFIED &&
      filter.state != state) {
    return false;
  }
  if (info.age_ns < filter.min_age_ns || info.age_ns > filter.max_age_ns) {
    return false;
  }
  sockaddr_storage peer = {};
  socklen_t size = sizeof peer;
  if (getpeername(info.fd, reinterpret_cast<sockaddr*>(&peer), &size) < 0) {
    size = 0;
    peer.ss_family = AF_UNSPEC;
  }
  if (!filter.peer.Matches(peer)) return false;
  to->set_id(ToString({worker, info.id}));
  to->set_worker(worker);
  to->set_peer(
      Ascii(net::Address::From(reinterpret_cast<const sockaddr*>(&peer), size)
                .ToString()));
  to->set_state(state);
  *to->mutable_age() =
      TimeUtil::NanosecondsToDuration(std::max<int64_t>(info.age_ns, 0));
  to->set_fd(info.fd);
  to->set_method(Ascii(info.method));
  to->set_target(Ascii(info.target));
  to->set_status(info.status);
  return true;
}

// A list under way, from worker to worker.
struct Listing {
  Context context;
  Filter filter;
  size_t page = 0;
  WorkerNumber from;
  v1::ListConnectionsResponse* response = nullptr;
  FinishFn finish;

  static void Go(std::shared_ptr<Listing> listing);
};

void Listing::Go(std::shared_ptr<Listing> l) {
  const auto& workers = l->context.target->workers;
  while (l->from.worker < workers.size() &&
         workers[l->from.worker].server == nullptr) {
    l->from = {l->from.worker + 1, UINT64_MAX};
  }
  if (l->from.worker >= workers.size()) {
    l->finish(absl::OkStatus());
    return;
  }
  const uint32_t number = l->from.worker;
  http::HttpServer* server = workers[number].server;
  const size_t want =
      l->page - static_cast<size_t>(l->response->connections_size());
  auto step = [walk = std::unique_ptr<Walk>(), server, number, want,
               below = l->from.number, filter = l->filter,
               keep = l->context.target](Found* found) mutable {
    if (!walk) walk = std::make_unique<Walk>(server, below);
    size_t close = 0;
    found->more = true;
    for (size_t i = 0; found->more && i < kLooks && close < kCloseLooks &&
                       found->connections.size() < want;
         ++i) {
      found->more = walk->Next(1, [&](const Info& info) {
        ++close;
        found->last = info.id;
        v1::Connection connection;
        if (Describe(info, filter, number, &connection)) {
          found->connections.push_back(std::move(connection));
        }
        return Verdict::kKeep;
      });
    }
    return found->more && found->connections.size() < want;
  };
  auto done = [l, number](std::optional<Found> found) mutable {
    if (!found) {
      l->finish(NoAnswer(number));
      return;
    }
    for (v1::Connection& c : found->connections) {
      *l->response->add_connections() = std::move(c);
    }
    const bool full =
        static_cast<size_t>(l->response->connections_size()) >= l->page;
    WorkerNumber next = {number, found->last};
    if (!found->more) next = {number + 1, UINT64_MAX};
    if (full && next.worker < l->context.target->workers.size()) {
      l->response->set_next_page_token(ToString(next));
      l->finish(absl::OkStatus());
      return;
    }
    l->from = next;
    Go(std::move(l));
  };
  Ask<Found>::Start(l->context.loop, l->context.mailbox, workers[number].loop,
                    std::move(step), std::move(done));
}

}  // namespace

absl::Status NoAnswer(uint32_t worker) {
  return Busy(
      "worker " + std::to_string(worker) + " is busy and does not answer",
      worker);
}

void ListConnections(const Context& context,
                     const v1::ListConnectionsRequest& request,
                     v1::ListConnectionsResponse* response, FinishFn finish) {
  auto listing = std::make_shared<Listing>();
  auto page = ParsePageSize(request.page_size());
  if (!page.ok()) return finish(page.status());
  auto peer = PeerFilter::Parse(request.peer());
  if (!peer.ok()) return finish(peer.status());
  if (!v1::Connection::State_IsValid(request.state())) {
    return finish(InvalidField("state", "there is no such state"));
  }
  for (auto [has, age, field, to] :
       {std::tuple{request.has_min_age(), &request.min_age(), "min_age",
                   &listing->filter.min_age_ns},
        {request.has_max_age(), &request.max_age(), "max_age",
         &listing->filter.max_age_ns}}) {
    if (!has) continue;
    auto ns = ParseDuration(*age, field, 0, kMaxAge);
    if (!ns.ok()) return finish(ns.status());
    *to = *ns;
  }
  listing->from = {0, UINT64_MAX};
  if (!request.page_token().empty()) {
    auto from = ParseWorkerNumber(request.page_token());
    if (!from || from->worker >= context.target->workers.size()) {
      return finish(InvalidField("page_token", "not one of this list"));
    }
    listing->from = *from;
  }
  listing->context = context;
  listing->page = *page;
  listing->filter.peer = *peer;
  listing->filter.state = request.state();
  listing->response = response;
  listing->finish = std::move(finish);
  Listing::Go(std::move(listing));
}

void CloseConnection(const Context& context,
                     const v1::CloseConnectionRequest& request,
                     FinishFn finish) {
  const auto id = ParseWorkerNumber(request.id());
  if (!id) {
    return finish(InvalidField(
        "id", "not that of a connection; ListConnections tells them"));
  }
  const auto& workers = context.target->workers;
  const std::string name = ToString(*id);
  const absl::Status gone = NotFound(v1::CONNECTION_NOT_FOUND, "connection",
                                     name, "there is no connection " + name);
  if (id->worker >= workers.size() || !workers[id->worker].server ||
      id->number == UINT64_MAX) {
    return finish(gone);
  }
  const Verdict verdict = request.abort() ? Verdict::kAbort : Verdict::kDrain;
  auto step = [walk = std::unique_ptr<Walk>(),
               server = workers[id->worker].server, number = id->number,
               verdict, keep = context.target](bool* closed) mutable {
    if (!walk) walk = std::make_unique<Walk>(server, number + 1);
    bool passed = false;  // the rest is older
    bool more = true;
    for (size_t i = 0; more && !passed && i < kLooks; ++i) {
      more = walk->Next(1, [&](const Info& info) {
        passed = true;
        if (info.id != number) return Verdict::kKeep;
        *closed = true;
        return verdict;
      });
    }
    return more && !passed;
  };
  Ask<bool>::Start(
      context.loop, context.mailbox, workers[id->worker].loop, std::move(step),
      [gone, worker = id->worker,
       finish = std::move(finish)](std::optional<bool> closed) mutable {
        if (!closed) {
          finish(NoAnswer(worker));
        } else {
          finish(*closed ? absl::OkStatus() : gone);
        }
      });
}

}  // namespace kevent::admin
