// SPDX-License-Identifier: Apache-2.0
//
// Byte ranges (RFC 9110 section 14): reading a Range field, and writing the
// Content-Range of the answer.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "benchmark/benchmark.h"
#include "server/http/range.h"

namespace kevent::http {
namespace {

constexpr uint64_t kSize = 123'456'789;

void BM_ParseRange(benchmark::State& state, std::string_view field,
                   size_t count) {
  std::array<ByteRange, kMaxRanges> ranges;
  for (auto _ : state) {
    benchmark::DoNotOptimize(field);
    RangeResult result = ParseRange(field, kSize, &ranges);
    benchmark::DoNotOptimize(ranges);
    if (result.count != count) abort();
  }
}
BENCHMARK_CAPTURE(BM_ParseRange, none, std::string_view(), 0);
BENCHMARK_CAPTURE(BM_ParseRange, one, "bytes=1048576-2097151", 1);
BENCHMARK_CAPTURE(BM_ParseRange, suffix, "bytes=-4096", 1);
BENCHMARK_CAPTURE(BM_ParseRange, resume, "bytes=104857600-", 1);
BENCHMARK_CAPTURE(BM_ParseRange, four,
                  "bytes=0-1023, 4096-8191, 1000000-1999999, -65536", 4);
// What an attacker sends: too many to be served, seen before they are sorted.
BENCHMARK_CAPTURE(BM_ParseRange, too_many,
                  "bytes=0-,1-,2-,3-,4-,5-,6-,7-,8-,9-,10-,11-,12-,13-,14-,15-,"
                  "16-,17-,18-,19-,20-,21-,22-,23-",
                  0);

void BM_FormatContentRange(benchmark::State& state) {
  char out[kMaxContentRange];
  ByteRange range = {1 << 20, 1 << 20};
  for (auto _ : state) {
    benchmark::DoNotOptimize(range);
    std::string_view text = FormatContentRange(range, kSize, out);
    benchmark::DoNotOptimize(text);
  }
}
BENCHMARK(BM_FormatContentRange);

}  // namespace
}  // namespace kevent::http
