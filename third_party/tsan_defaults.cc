// SPDX-License-Identifier: Apache-2.0

// Linked into every binary by --config=tsan. Debian's gRPC, Abseil and Protocol
// Buffers are not instrumented, so ThreadSanitizer sees neither their locks nor
// their hand-over of memory and must not judge what happens inside them.
// TSAN_OPTIONS in the environment still overrides these.
extern "C" const char* __tsan_default_options() {
  return "ignore_noninstrumented_modules=1";
}
