// SPDX-License-Identifier: Apache-2.0
#include "server/keventd/options.h"

#include <errno.h>
#include <fcntl.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>
#include <openssl/sha.h>
#include <string.h>
#include <unistd.h>

#include "server/admin/errors.h"
#include "server/files/mime.h"
#include "server/files/page_arena.h"
#include "server/http/message.h"

namespace kevent::keventd {
namespace {

constexpr int64_t kMillisecond = 1'000'000;
constexpr size_t kMaxConfigBytes = 1 << 20;
constexpr size_t kMaxWorkers = 1024;

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (line_ > 0) return;
    line_ = line + 1;
    column_ = column + 1;
    message_ = message;
  }
  absl::Status Of(const std::string& name) const {
    return admin::InvalidConfig(name + ":" + std::to_string(line_) + ":" +
                                    std::to_string(column_) + ": " + message_,
                                "", line_, column_);
  }

 private:
  int line_ = 0;
  int column_ = 0;
  std::string message_;
};

absl::Status Invalid(const std::string& text, const std::string& field = "") {
  return admin::InvalidConfig(text, field);
}

// As "field: text".
absl::Status InvalidField(const std::string& field, const std::string& text) {
  return Invalid(field + ": " + text, field);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) {
    return absl::ErrnoToStatus(errno, "cannot open configuration " + path);
  }
  std::string text;
  char buffer[4096];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0 &&
         text.size() <= kMaxConfigBytes) {
    text.append(buffer, static_cast<size_t>(n));
  }
  int error = errno;
  close(fd);
  if (n < 0) {
    return absl::ErrnoToStatus(error, "cannot read configuration " + path);
  }
  if (text.size() > kMaxConfigBytes) {
    return Invalid("configuration " + path + " is larger than 1 MiB");
  }
  return text;
}

// Of the fields that are set, in the order of their numbers.
std::string Digest(const config::v1::ServerConfig& config) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    config.SerializeToCodedStream(&coded);
  }
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         digest);
  std::string hex;
  for (unsigned char byte : digest) {
    constexpr char kHex[] = "0123456789abcdef";
    hex.append({kHex[byte >> 4], kHex[byte & 15]});
  }
  return hex;
}

int64_t Milliseconds(uint32_t value, int64_t fallback_ns) {
  return value ? value * kMillisecond : fallback_ns;
}

}  // namespace

absl::StatusOr<config::v1::ServerConfig> LoadConfig(const std::string& path) {
  auto text = ReadFile(path);
  if (!text.ok()) return text.status();
  return ParseConfig(*text, "configuration " + path);
}

std::string PrintConfig(const config::v1::ServerConfig& config) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(config, &text);
  return text;
}

std::vector<std::string> NeedsRestart(const DaemonOptions& before,
                                      const DaemonOptions& next) {
  std::vector<std::string> fields;
  if (before.engine != next.engine) fields.push_back("engine");
  if (before.workers != next.workers) fields.push_back("workers");
  if (before.defer_accept_s != next.defer_accept_s) {
    fields.push_back("defer_accept_s");
  }
  if (before.http.limits.header_bytes != next.http.limits.header_bytes) {
    fields.push_back("http.header_bytes");
  }
  return fields;
}

absl::StatusOr<config::v1::ServerConfig> ParseConfig(const std::string& text,
                                                     const std::string& name) {
  if (text.size() > kMaxConfigBytes) {
    return Invalid(name + " is larger than 1 MiB");
  }
  config::v1::ServerConfig config;
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(text, &config)) {
    return error.Of(name);
  }
  return config;
}

absl::StatusOr<EngineKind> ParseEngine(const std::string& name) {
  for (EngineKind kind : {EngineKind::kAuto, EngineKind::kModule,
                          EngineKind::kUring, EngineKind::kEpoll}) {
    if (name == EngineName(kind)) return kind;
  }
  return Invalid(
      "engine \"" + name + "\" is none of auto, module, uring, epoll",
      "engine");
}

absl::StatusOr<DaemonOptions> Validate(const config::v1::ServerConfig& config) {
  DaemonOptions o;
  o.root = config.root();
  if (o.root.empty()) {
    return Invalid("no root: name the directory to serve with --root=DIR",
                   "root");
  }
  std::vector<std::string> listen(config.listen().begin(),
                                  config.listen().end());
  if (listen.empty()) listen.push_back("127.0.0.1:8080");
  for (const std::string& text : listen) {
    auto address = net::Address::Parse(text);
    if (!address.ok()) {
      const absl::string_view why = address.status().message();
      return Invalid(std::string(why), "listen");
    }
    o.listen.push_back(*address);
  }
  if (!config.engine().empty()) {
    auto engine = ParseEngine(config.engine());
    if (!engine.ok()) return engine.status();
    o.engine = *engine;
  }
  if (config.workers() > kMaxWorkers) {
    return InvalidField("workers", std::to_string(config.workers()) +
                                       " is above " +
                                       std::to_string(kMaxWorkers));
  }
  o.workers = config.workers();
  if (config.access_log() != "off") o.access_log = config.access_log();
  if (config.defer_accept_s() > 3600) {
    return InvalidField("defer_accept_s", "at most 3600");
  }
  o.defer_accept_s = static_cast<int>(config.defer_accept_s());
  o.drain_timeout_ns =
      Milliseconds(config.drain_timeout_ms(), 30'000 * kMillisecond);

  const config::v1::HttpConfig& http = config.http();
  using http::Limits;
  if (http.header_bytes() > Limits::kMaxHeaderBytes) {
    return InvalidField("http.header_bytes",
                        "at most " + std::to_string(Limits::kMaxHeaderBytes));
  }
  if (http.header_count() > Limits::kMaxHeaderCount) {
    return InvalidField("http.header_count",
                        "at most " + std::to_string(Limits::kMaxHeaderCount));
  }
  if (http.request_line_bytes()) {
    o.http.limits.request_line = http.request_line_bytes();
  }
  if (http.header_bytes()) o.http.limits.header_bytes = http.header_bytes();
  if (http.header_count()) o.http.limits.header_count = http.header_count();
  if (o.http.limits.request_line > o.http.limits.header_bytes) {
    return Invalid("http.request_line_bytes is above http.header_bytes",
                   "http.request_line_bytes");
  }
  o.http.header_timeout_ns =
      Milliseconds(http.header_timeout_ms(), o.http.header_timeout_ns);
  o.http.idle_timeout_ns =
      Milliseconds(http.idle_timeout_ms(), o.http.idle_timeout_ns);
  o.http.send_timeout_ns =
      Milliseconds(http.send_timeout_ms(), o.http.send_timeout_ns);
  if (http.max_connections()) o.http.max_connections = http.max_connections();
  if (http.server_name() == "off") {
    o.http.server_name.clear();
  } else if (!http.server_name().empty()) {
    if (!http::IsFieldValue(http.server_name()) ||
        http.server_name().size() > 200) {
      return InvalidField("http.server_name", "not fit for a header field");
    }
    o.http.server_name = http.server_name();
  }

  const config::v1::FilesConfig& files = config.files();
  o.index.assign(files.index().begin(), files.index().end());
  if (o.index.empty()) o.index.push_back("index.html");
  for (const std::string& name : o.index) {
    if (name.empty() || name == "." || name == ".." ||
        name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
      return InvalidField("files.index", "\"" + name + "\" is not a file name");
    }
  }
  o.listing = files.listing();
  if (files.symlinks() == config::v1::FilesConfig::NEVER) {
    o.symlinks = files::SymlinkPolicy::kNever;
  }
  if (files.cache_entries()) o.cache.max_entries = files.cache_entries();
  if (files.cache_descriptors()) {
    o.cache.max_descriptors = files.cache_descriptors();
  }
  if (files.cache_body_bytes()) {
    o.cache.max_body_bytes = files.cache_body_bytes();
  }
  if (files.cache_hot_bytes()) {
    if (files.cache_hot_bytes() > files::PageArena::kMaxRun) {
      return InvalidField("files.cache_hot_bytes", "at most 16777216");
    }
    o.cache.max_page_bytes = files.cache_hot_bytes();
  }
  if (files.cache_total_bytes()) {
    o.cache.max_total_body_bytes = files.cache_total_bytes();
  }
  o.cache.revalidate_ns =
      Milliseconds(files.cache_revalidate_ms(), o.cache.revalidate_ns);
  o.mime_types = files.mime_types().empty() ? files::MimeTypes::kSystemFile
                                            : files.mime_types();
  o.digest = Digest(config);
  return o;
}

}  // namespace kevent::keventd
