// SPDX-License-Identifier: Apache-2.0
#ifndef BENCHMARKS_VM_MAKE_QUEUE_H_
#define BENCHMARKS_VM_MAKE_QUEUE_H_

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "kevent/queue/queue.h"

namespace kevent::bench {

inline std::unique_ptr<Queue> MakeQueue(std::string_view engine) {
  Queue::Options options;
  for (EngineKind kind :
       {EngineKind::kModule, EngineKind::kUring, EngineKind::kEpoll}) {
    if (engine == EngineName(kind)) options.engine = kind;
  }
  auto queue = Queue::Create(options);
  if (!queue.ok() || options.engine == EngineKind::kAuto) {
    fprintf(stderr, "no engine '%s': %s\n", std::string(engine).c_str(),
            std::string(queue.status().message()).c_str());
    exit(1);
  }
  return *std::move(queue);
}
// A queue for one thread on the engine of that name. Ends the program if there
// is none.

}  // namespace kevent::bench

#endif  // BENCHMARKS_VM_MAKE_QUEUE_H_
