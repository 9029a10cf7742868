// SPDX-License-Identifier: Apache-2.0
#include "kevent/queue/conformance/conformance.h"

namespace kevent::conformance {
namespace {

class CreateTest : public QueueTest {};
KEVENT_CONFORMANCE(CreateTest);

TEST_P(CreateTest, IsTheEngineAskedForAndSaysWhy) {
  EXPECT_EQ(GetParam(), EngineName(queue().engine()));
  EXPECT_NE(queue().engine_reason().find(GetParam()), std::string::npos)
      << queue().engine_reason();
  const Queue::Stats stats = queue().stats();
  EXPECT_EQ(stats.operations, 0u);
  EXPECT_EQ(stats.interests, 0u);
  EXPECT_EQ(stats.entries, 0u);
  EXPECT_EQ(stats.submitted, 0u);
}

TEST_P(CreateTest, ManyQueuesSideBySide) {
  std::vector<std::unique_ptr<Queue>> queues;
  PostOp posts[10];
  for (PostOp& post : posts) {
    auto queue = Create({});
    ASSERT_TRUE(queue.ok()) << queue.status();
    EXPECT_EQ(0, (*queue)->Post(&post));
    queues.push_back(std::move(*queue));
  }
  for (size_t i = 0; i < queues.size(); ++i) {
    Entry e;
    Wait wait;
    wait.min = 0;
    EXPECT_EQ(1, queues[i]->Enter({&e, 1}, wait));
    EXPECT_EQ(e.operation, &posts[i]);
  }
}

TEST(CreateAnyTest, WorksOrSaysWhyNot) {
  for (EngineKind kind : {EngineKind::kAuto, EngineKind::kModule,
                          EngineKind::kUring, EngineKind::kEpoll}) {
    Queue::Options options;
    options.engine = kind;
    auto queue = Queue::Create(options);
    if (queue.ok()) {
      EXPECT_NE((*queue)->engine(), EngineKind::kAuto);
      if (kind != EngineKind::kAuto) {
        EXPECT_EQ((*queue)->engine(), kind);
      }
      EXPECT_FALSE((*queue)->engine_reason().empty());
    } else {
      EXPECT_EQ(queue.status().code(), absl::StatusCode::kUnavailable);
      EXPECT_NE(queue.status().ToString().find(std::string(EngineName(kind))),
                std::string::npos)
          << queue.status();
    }
  }
}

}  // namespace
}  // namespace kevent::conformance
