// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_SERVICE_H_
#define SERVER_ADMIN_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "proto/kevent/admin/v1/admin.grpc.pb.h"
#include "server/admin/mailbox.h"
#include "server/admin/sampler.h"
#include "server/admin/target.h"
#include "server/loop/loop.h"

namespace kevent::admin {

class Service final : public v1::Admin::CallbackService {
 public:
  Service(loop::Loop* loop, std::shared_ptr<Mailbox> mailbox,
          std::shared_ptr<const Target> target, size_t max_streams);
  // `loop` is the admin loop, which must outlive this.
  ~Service() override;

  void SetDraining(bool draining) { draining_.store(draining); }
  // Any thread.

  // The calls; gRPC's threads.
  grpc::ServerUnaryReactor* GetInfo(grpc::CallbackServerContext* context,
                                    const v1::GetInfoRequest* request,
                                    v1::GetInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetStats(grpc::CallbackServerContext* context,
                                     const v1::GetStatsRequest* request,
                                     v1::Stats* response) override;
  grpc::ServerWriteReactor<v1::Stats>* WatchStats(
      grpc::CallbackServerContext* context,
      const v1::WatchStatsRequest* request) override;

 private:
  class StatsStream;

  void Fill(const Sample& sample, v1::Stats* stats);

  loop::Loop* const loop_;
  const std::shared_ptr<Mailbox> mailbox_;
  const std::shared_ptr<const Target> target_;
  const size_t max_streams_;
  const int64_t start_ns_;
  const int64_t start_time_ns_;  // CLOCK_REALTIME
  std::atomic<size_t> streams_{0};
  std::atomic<bool> draining_{false};
  Sampler sampler_;  // the admin loop's
};
// kevent.admin.v1.Admin. gRPC's threads check the arguments and hand the call
// to the admin loop; nothing here waits.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_SERVICE_H_
