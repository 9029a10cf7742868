// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_LISTS_H_
#define SERVER_ADMIN_LISTS_H_

#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "proto/kevent/admin/v1/admin.pb.h"
#include "server/admin/mailbox.h"
#include "server/admin/target.h"
#include "server/loop/loop.h"

namespace kevent::admin {

struct Context {
  loop::Loop* loop = nullptr;  // the admin loop
  std::shared_ptr<Mailbox> mailbox;
  std::shared_ptr<const Target> target;
};

using FinishFn = absl::AnyInvocable<void(absl::Status)>;

// Each of the following is called in the admin loop, fills `response` and calls
// `finish` there, maybe at once. Both messages must live until then.

void ListConnections(const Context& context,
                     const v1::ListConnectionsRequest& request,
                     v1::ListConnectionsResponse* response, FinishFn finish);
void CloseConnection(const Context& context,
                     const v1::CloseConnectionRequest& request,
                     FinishFn finish);
void ListCache(const Context& context, const v1::ListCacheRequest& request,
               v1::ListCacheResponse* response, FinishFn finish);
void PurgeCache(const Context& context, const v1::PurgeCacheRequest& request,
                v1::PurgeCacheResponse* response, FinishFn finish);
void ListInterests(const Context& context,
                   const v1::ListInterestsRequest& request,
                   v1::ListInterestsResponse* response, FinishFn finish);

absl::Status NoAnswer(uint32_t worker);

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_LISTS_H_
