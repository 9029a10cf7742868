// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_SERVICE_H_
#define SERVER_ADMIN_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proto/kevent/admin/v1/admin.grpc.pb.h"
#include "server/admin/drainer.h"
#include "server/admin/lists.h"
#include "server/admin/log_stream.h"
#include "server/admin/mailbox.h"
#include "server/admin/sampler.h"
#include "server/admin/stats_stream.h"
#include "server/admin/target.h"
#include "server/loop/loop.h"

namespace kevent::admin {

class Service final : public v1::Admin::WithRawCallbackMethod_WatchStats<
                          v1::Admin::CallbackService> {
 public:
  Service(const Context& context, size_t max_streams,
          std::optional<std::vector<std::string>> operators,
          std::function<void(bool serving)> set_serving);
  // The context's loop must outlive this; `set_serving` is called in it.
  // `operators` are the common names of clients that may change something;
  // none: everybody may who has got here.
  ~Service() override;

  void Collect(absl::AnyInvocable<void(const v1::Stats&)> done);
  // In the admin loop: all counters, as GetStats gives them.

  bool draining() const { return draining_.load(); }
  void SetDraining(bool draining) { draining_.store(draining); }
  // Any thread: what GetInfo tells.

  // The calls; gRPC's threads.
  using Unary = grpc::ServerUnaryReactor;
  using Caller = grpc::CallbackServerContext;
  Unary* GetInfo(Caller* context, const v1::GetInfoRequest* request,
                 v1::GetInfoResponse* response) override;
  Unary* GetStats(Caller* context, const v1::GetStatsRequest* request,
                  v1::Stats* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchStats(
      Caller* context, const grpc::ByteBuffer* request) override;
  // A message is made once for all who watch: as bytes.
  Unary* ListConnections(Caller* context,
                         const v1::ListConnectionsRequest* request,
                         v1::ListConnectionsResponse* response) override;
  Unary* CloseConnection(Caller* context,
                         const v1::CloseConnectionRequest* request,
                         v1::CloseConnectionResponse* response) override;
  Unary* Drain(Caller* context, const v1::DrainRequest* request,
               v1::DrainResponse* response) override;
  Unary* Undrain(Caller* context, const v1::UndrainRequest* request,
                 v1::UndrainResponse* response) override;
  Unary* SetLogLevel(Caller* context, const v1::SetLogLevelRequest* request,
                     v1::SetLogLevelResponse* response) override;
  grpc::ServerWriteReactor<v1::TailLogResponse>* TailLog(
      Caller* context, const v1::TailLogRequest* request) override;
  Unary* ListCache(Caller* context, const v1::ListCacheRequest* request,
                   v1::ListCacheResponse* response) override;
  Unary* PurgeCache(Caller* context, const v1::PurgeCacheRequest* request,
                    v1::PurgeCacheResponse* response) override;
  Unary* ListQueues(Caller* context, const v1::ListQueuesRequest* request,
                    v1::ListQueuesResponse* response) override;
  Unary* ListInterests(Caller* context, const v1::ListInterestsRequest* request,
                       v1::ListInterestsResponse* response) override;
  Unary* GetConfig(Caller* context, const v1::GetConfigRequest* request,
                   v1::GetConfigResponse* response) override;
  Unary* ValidateConfig(Caller* context,
                        const v1::ValidateConfigRequest* request,
                        v1::ValidateConfigResponse* response) override;
  Unary* ApplyConfig(Caller* context, const v1::ApplyConfigRequest* request,
                     v1::ApplyConfigResponse* response) override;
  Unary* RollbackConfig(Caller* context,
                        const v1::RollbackConfigRequest* request,
                        v1::RollbackConfigResponse* response) override;

 private:
  absl::Status CheckRole(const Caller* context) const;
  static Unary* Refuse(Caller* context, const absl::Status& status);
  template <typename Fn>
  Unary* InLoop(Caller* context, Fn fn);
  template <typename Fn>
  Unary* Change(Caller* context, Fn fn);
  void Fill(const Sample& sample, v1::Stats* stats);
  absl::Status TakeStream();
  void Note(const std::string& text);

  const Context context_;
  loop::Loop* const loop_;
  const std::shared_ptr<Mailbox> mailbox_;
  const std::shared_ptr<const Target> target_;
  const size_t max_streams_;
  const std::optional<std::vector<std::string>> operators_;
  const int64_t start_ns_;
  const int64_t start_time_ns_;  // CLOCK_REALTIME
  std::atomic<size_t> streams_{0};
  std::atomic<bool> draining_{false};
  // The admin loop's.
  Sampler sampler_;
  StatsStreams watchers_;
  LogStreams logs_;
  Drainer drainer_;
};
// kevent.admin.v1.Admin. gRPC's threads check the arguments and hand the call
// to the admin loop; nothing here waits.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_SERVICE_H_
