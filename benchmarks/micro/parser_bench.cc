// SPDX-License-Identifier: Apache-2.0
//
// What the HTTP layer itself spends on a request: parsing its head, building
// the head of the answer, dates.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <string>
#include <string_view>

#include "benchmark/benchmark.h"
#include "server/http/date.h"
#include "server/http/parser.h"
#include "server/http/response.h"

namespace kevent::http {
namespace {

constexpr std::string_view kMinimal =
    "GET /index.html HTTP/1.1\r\n"
    "Host: localhost\r\n"
    "\r\n";

constexpr std::string_view kCurl =
    "GET /pub/file.bin HTTP/1.1\r\n"
    "Host: www.example.com:8080\r\n"
    "User-Agent: curl/7.88.1\r\n"
    "Accept: */*\r\n"
    "\r\n";

constexpr std::string_view kBrowser =
    "GET /assets/site/main.css?v=20240131 HTTP/1.1\r\n"
    "Host: www.example.com\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:115.0) Gecko/20100101 "
    "Firefox/115.0\r\n"
    "Accept: text/css,*/*;q=0.1\r\n"
    "Accept-Language: en-GB,en;q=0.8,de;q=0.5,fr;q=0.3\r\n"
    "Accept-Encoding: gzip, deflate, br\r\n"
    "Referer: https://www.example.com/articles/2024/an-ordinary-page.html\r\n"
    "Connection: keep-alive\r\n"
    "Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; "
    "consent=1; _ga=GA1.2.1234567890.1700000000\r\n"
    "Sec-Fetch-Dest: style\r\n"
    "Sec-Fetch-Mode: no-cors\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "If-Modified-Since: Wed, 31 Jan 2024 10:20:30 GMT\r\n"
    "If-None-Match: \"65ba1ffe-2f3c\"\r\n"
    "\r\n";

void CheckDone(const ParseResult& result, size_t size) {
  if (result.kind != ParseResult::Kind::kDone || result.consumed != size) {
    abort();
  }
}

void BM_Parse(benchmark::State& state, std::string_view text) {
  const Limits limits;
  for (auto _ : state) {
    Request request;
    ParseResult result = Parse(text, limits, &request);
    benchmark::DoNotOptimize(request);
    CheckDone(result, text.size());
  }
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>(text.size()));
}
BENCHMARK_CAPTURE(BM_Parse, minimal, kMinimal);
BENCHMARK_CAPTURE(BM_Parse, curl, kCurl);
BENCHMARK_CAPTURE(BM_Parse, browser, kBrowser);

// A head that comes in pieces of so many bytes.
void BM_ParseInPieces(benchmark::State& state) {
  const Limits limits;
  const size_t piece = static_cast<size_t>(state.range(0));
  for (auto _ : state) {
    Request request;
    ParserState parser;
    ParseResult result;
    size_t size = 0;
    do {
      size = std::min(size + piece, kBrowser.size());
      result = Parse(kBrowser.substr(0, size), limits, &request, &parser);
    } while (result.kind == ParseResult::Kind::kNeedMore);
    CheckDone(result, kBrowser.size());
  }
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>(kBrowser.size()));
}
BENCHMARK(BM_ParseInPieces)->Arg(1)->Arg(16)->Arg(256);

// Many requests in one buffer, as a client that pipelines sends them.
void BM_ParsePipelined(benchmark::State& state) {
  const Limits limits;
  std::string text;
  for (int i = 0; i < 64; ++i) text += kCurl;
  for (auto _ : state) {
    std::string_view rest = text;
    while (!rest.empty()) {
      Request request;
      ParseResult result = Parse(rest, limits, &request);
      CheckDone(result, kCurl.size());
      rest.remove_prefix(result.consumed);
    }
  }
  state.SetItemsProcessed(state.iterations() * 64);
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>(text.size()));
}
BENCHMARK(BM_ParsePipelined);

// Fields beyond those that the parser picks out itself.
void BM_FindField(benchmark::State& state) {
  Request request;
  CheckDone(Parse(kBrowser, Limits(), &request), kBrowser.size());
  for (auto _ : state) {
    std::string_view value = request.Find("If-None-Match");
    benchmark::DoNotOptimize(value);
  }
}
BENCHMARK(BM_FindField);

// The head of a file's answer, as it is built once for each file in the cache.
void BM_BuildHead(benchmark::State& state) {
  char buffer[1024];
  for (auto _ : state) {
    ResponseHead head(buffer);
    head.Status(200);
    head.Append("Server", "kevent");
    head.Append("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    head.Append("Content-Type", "text/html; charset=utf-8");
    head.Append("Content-Length", uint64_t{123456});
    head.Append("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    head.Append("ETag", "\"1e240-5f5e100\"");
    head.AppendRaw("Accept-Ranges: bytes\r\n");
    std::string_view text = head.Finish();
    benchmark::DoNotOptimize(text);
    if (text.empty()) abort();
  }
}
BENCHMARK(BM_BuildHead);

void BM_ErrorResponse(benchmark::State& state) {
  char buffer[kMaxErrorResponse];
  ErrorResponse error;
  error.status = 404;
  error.date = "Sun, 06 Nov 1994 08:49:37 GMT";
  error.keep_alive = true;
  for (auto _ : state) {
    std::string_view text = WriteErrorResponse(buffer, error);
    benchmark::DoNotOptimize(text);
    if (text.empty()) abort();
  }
}
BENCHMARK(BM_ErrorResponse);

void BM_FormatDate(benchmark::State& state) {
  char text[kHttpDateSize];
  time_t time = 1'700'000'000;
  for (auto _ : state) {
    FormatHttpDate(time++, text);
    benchmark::DoNotOptimize(text);
  }
}
BENCHMARK(BM_FormatDate);

// The usual case: the second is the one of the last response.
void BM_DateCache(benchmark::State& state) {
  DateCache cache;
  time_t time = 1'700'000'000;
  for (auto _ : state) {
    benchmark::DoNotOptimize(time);
    std::string_view text = cache.Get(time);
    benchmark::DoNotOptimize(text);
  }
}
BENCHMARK(BM_DateCache);

void BM_ParseDate(benchmark::State& state) {
  std::string_view text = "Sun, 06 Nov 1994 08:49:37 GMT";
  for (auto _ : state) {
    benchmark::DoNotOptimize(text);
    auto time = ParseHttpDate(text, 1'700'000'000);
    benchmark::DoNotOptimize(time);
    if (!time) abort();
  }
}
BENCHMARK(BM_ParseDate);

}  // namespace
}  // namespace kevent::http
