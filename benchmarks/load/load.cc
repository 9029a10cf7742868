// SPDX-License-Identifier: Apache-2.0
//
// Makes HTTP load and prints what it saw, and what the server spent, as one
// JSON object. benchmarks/http_bench.py drives it.
#include <arpa/inet.h>

#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "benchmarks/load/client.h"
#include "benchmarks/load/usage.h"

ABSL_FLAG(uint16_t, port, 8080, "port of the server, on 127.0.0.1");
ABSL_FLAG(std::string, targets, "",
          "file with lines 'LENGTH PATH': what to ask for in turn, and the "
          "length the body must have");
ABSL_FLAG(std::string, sequence, "",
          "file of numbers of targets, the first is 0: the order in which they "
          "are asked for");
ABSL_FLAG(int, pipeline, 1, "requests sent together on a connection");
ABSL_FLAG(int, connections, 64, "connections");
ABSL_FLAG(double, rate, 0,
          "requests a second, timed from when they were due; 0: the next one "
          "when the last one is answered");
ABSL_FLAG(bool, close, false, "a connection for each request");
ABSL_FLAG(bool, rest, false,
          "--rate: sleep until the next request is due, and be a little late");
ABSL_FLAG(bool, spin, false, "never sleep in the kernel");
ABSL_FLAG(double, warmup, 0.2, "seconds before measuring");
ABSL_FLAG(double, seconds, 1, "seconds of measuring");
ABSL_FLAG(std::string, evict_root, "",
          "the folder that is served: each file leaves the page cache before "
          "it is asked for");
ABSL_FLAG(std::vector<std::string>, server_pids, {},
          "processes whose CPU time is the server's");

namespace {

using kevent::load::Client;
using kevent::load::CpuTimes;
using kevent::load::Options;
using kevent::load::Result;
using kevent::load::Target;
using kevent::load::Usage;

int Fail(const std::string& text) {
  fprintf(stderr, "load: %s\n", text.c_str());
  return 1;
}

bool ReadTargets(const std::string& path, std::vector<Target>* targets) {
  std::ifstream file(path);
  Target target;
  while (file >> target.length >> target.path) targets->push_back(target);
  return file.eof() && !targets->empty();
}

bool ReadSequence(const std::string& path, size_t targets,
                  std::vector<uint32_t>* sequence) {
  std::ifstream file(path);
  for (uint32_t target; file >> target;) {
    if (target >= targets) return false;
    sequence->push_back(target);
  }
  return file.eof() && !sequence->empty();
}

bool ReadPids(const std::vector<std::string>& texts, std::vector<pid_t>* pids) {
  for (const std::string& text : texts) {
    pid_t pid = 0;
    auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), pid);
    if (error != std::errc() || end != text.data() + text.size()) return false;
    pids->push_back(pid);
  }
  return true;
}

void PrintLatency(const kevent::load::Histogram& h) {
  auto us = [](int64_t ns) { return static_cast<double>(ns) / 1e3; };
  printf("\"latency\":{\"count\":%" PRIu64
         ",\"p50_us\":%.3f,\"p99_us\":%.3f,\"p999_us\":%.3f,\"max_us\":%.3f,"
         "\"histogram_ns\":[",
         h.count(), us(h.Percentile(0.5)), us(h.Percentile(0.99)),
         us(h.Percentile(0.999)), us(h.max_ns()));
  const char* comma = "";
  h.ForEach([&](int64_t upper_ns, uint64_t count) {
    printf("%s[%" PRId64 ",%" PRIu64 "]", comma, upper_ns, count);
    comma = ",";
  });
  printf("]}");
}

void PrintUsage(const Usage& u) {
  printf("\"server\":{\"cpu_us\":%.3f,\"user_us\":%" PRId64
         ",\"system_us\":%" PRId64 ",\"voluntary_switches\":%" PRId64
         ",\"involuntary_switches\":%" PRId64 "},\"client_cpu_us\":%.3f,",
         static_cast<double>(u.server_cpu_ns) / 1e3, u.server_user_us,
         u.server_system_us, u.voluntary_switches, u.involuntary_switches,
         static_cast<double>(u.client_cpu_ns) / 1e3);
  printf("\"cpus\":[");
  const char* comma = "";
  for (const CpuTimes& c : u.cpus) {
    printf("%s{\"cpu\":%d,\"busy_us\":%" PRId64 ",\"softirq_us\":%" PRId64
           ",\"steal_us\":%" PRId64 ",\"total_us\":%" PRId64 "}",
           comma, c.cpu, c.busy_us, c.softirq_us, c.steal_us, c.total_us);
    comma = ",";
  }
  printf("]");
}

void PrintResult(const Result& r, const Usage& usage) {
  printf("{\"seconds\":%.6f,\"answers\":%" PRIu64
         ",\"answers_in_time\":%" PRIu64 ",\"body_bytes\":%" PRIu64
         ",\"bytes\":%" PRIu64 ",\"unanswered\":%" PRIu64
         ",\"most_waiting\":%" PRIu64 ",",
         r.seconds, r.answers, r.answers_in_time, r.body_bytes, r.bytes,
         r.unanswered, r.most_waiting);
  printf("\"errors\":{\"connect\":%" PRIu64 ",\"io\":%" PRIu64
         ",\"status\":%" PRIu64 ",\"length\":%" PRIu64 ",\"head\":%" PRIu64
         "},",
         r.errors.connect, r.errors.io, r.errors.status, r.errors.length,
         r.errors.head);
  PrintLatency(r.latency);
  printf(",");
  PrintUsage(usage);
  printf("}\n");
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Makes HTTP load and measures it.");
  if (absl::ParseCommandLine(argc, argv).size() > 1) {
    return Fail("unexpected argument");
  }
  Options options;
  options.address.sin_family = AF_INET;
  options.address.sin_port = htons(absl::GetFlag(FLAGS_port));
  options.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  options.connections = absl::GetFlag(FLAGS_connections);
  options.rate = absl::GetFlag(FLAGS_rate);
  options.close = absl::GetFlag(FLAGS_close);
  options.spin = absl::GetFlag(FLAGS_spin);
  options.rest = absl::GetFlag(FLAGS_rest);
  options.evict_root = absl::GetFlag(FLAGS_evict_root);
  const double warmup = absl::GetFlag(FLAGS_warmup);
  const double seconds = absl::GetFlag(FLAGS_seconds);
  if (options.connections < 1) return Fail("--connections must be at least 1");
  if (!(options.rate >= 0)) return Fail("--rate must not be negative");
  options.pipeline = absl::GetFlag(FLAGS_pipeline);
  if (options.pipeline < 1) return Fail("--pipeline must be at least 1");
  if (options.pipeline > 1 && (options.rate > 0 || options.close)) {
    return Fail("--pipeline needs kept connections and no --rate");
  }
  if (!(warmup >= 0)) return Fail("--warmup must not be negative");
  if (!(seconds > 0)) return Fail("--seconds must be positive");
  options.warmup_ns = static_cast<int64_t>(warmup * 1e9);
  options.window_ns = static_cast<int64_t>(seconds * 1e9);
  if (!ReadTargets(absl::GetFlag(FLAGS_targets), &options.targets)) {
    return Fail("--targets: no file with lines 'LENGTH PATH'");
  }
  const std::string sequence = absl::GetFlag(FLAGS_sequence);
  if (!sequence.empty() &&
      !ReadSequence(sequence, options.targets.size(), &options.sequence)) {
    return Fail("--sequence: no file of numbers of targets");
  }
  std::vector<pid_t> pids;
  if (!ReadPids(absl::GetFlag(FLAGS_server_pids), &pids)) {
    return Fail("--server_pids: not a list of numbers");
  }

  std::vector<Usage> usage;
  Client client(options,
                [&] { usage.push_back(kevent::load::ReadUsage(pids)); });
  absl::Status status = client.Run();
  if (!status.ok()) {
    const kevent::load::Errors& e = client.result().errors;
    return Fail(std::string(status.message()) + " (errors: connect " +
                std::to_string(e.connect) + ", io " + std::to_string(e.io) +
                ", status " + std::to_string(e.status) + ", length " +
                std::to_string(e.length) + ", head " + std::to_string(e.head) +
                ")");
  }
  PrintResult(client.result(),
              kevent::load::Difference(usage.at(1), usage.at(0)));
  return 0;
}
