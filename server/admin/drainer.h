// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_DRAINER_H_
#define SERVER_ADMIN_DRAINER_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "proto/kevent/admin/v1/admin.pb.h"
#include "server/admin/lists.h"
#include "server/loop/timer.h"

namespace kevent::admin {

class Drainer {
 public:
  class Call final : public grpc::ServerUnaryReactor {
   public:
    Call(Drainer* drainer, int64_t timeout_ns, bool wait,
         v1::DrainResponse* response)
        : drainer_(drainer),
          timeout_ns_(timeout_ns),
          wait_(wait),
          response_(response) {}

   private:
    friend class Drainer;
    void OnCancel() override;
    void OnDone() override;

    Drainer* const drainer_;
    const int64_t timeout_ns_;
    const bool wait_;
    v1::DrainResponse* const response_;
    bool answered_ = false;
  };
  // One Drain, which may wait for hours. Deletes itself.

  Drainer(const Context& context, std::function<void(bool)> set_serving)
      : context_(context),
        set_serving_(std::move(set_serving)),
        deadline_(this),
        patience_(this) {}
  ~Drainer();

  // In the admin loop.
  void Start(Call* call);
  void Undrain(FinishFn finish);

 private:
  enum class State : uint8_t { kServing, kDraining, kDrained };

  struct Deadline : loop::Timer {
    explicit Deadline(Drainer* d) : loop::Timer(OnDeadline), drainer(d) {}
    Drainer* const drainer;
  };

  struct Patience : loop::Timer {
    explicit Patience(Drainer* d) : loop::Timer(OnPatience), drainer(d) {}
    Drainer* const drainer;
  };

  static void OnDeadline(loop::Loop* loop, loop::Timer* timer);
  static void OnPatience(loop::Loop* loop, loop::Timer* timer);
  void Undrained(const absl::Status& status);
  void DrainServers(int64_t timeout_ns);
  void Drained(uint64_t round);
  void Answer(Call* call, const absl::Status& status);
  void AnswerAll(const absl::Status& status);

  const Context context_;
  const std::function<void(bool)> set_serving_;
  State state_ = State::kServing;
  bool undraining_ = false;
  FinishFn undrain_finish_;  // of the call that waits for it
  uint64_t round_ = 0;       // tells late ends of a drain that was taken back
  std::vector<Call*> waiting_;
  Deadline deadline_;
  Patience patience_;
};
// Takes the service out of service and back. The admin loop's thread alone.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_DRAINER_H_
