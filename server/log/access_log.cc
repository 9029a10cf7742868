// SPDX-License-Identifier: Apache-2.0
#include "server/log/access_log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>

namespace kevent::log {
namespace {

void AppendNumber(std::string* out, uint64_t value) {
  char text[20];
  out->append(text, std::to_chars(text, text + sizeof text, value).ptr);
}

void AppendPeer(std::string* out, int fd) {
  sockaddr_storage address;
  socklen_t length = sizeof address;
  char text[INET6_ADDRSTRLEN];
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    const void* ip = nullptr;
    if (address.ss_family == AF_INET) {
      ip = &reinterpret_cast<sockaddr_in*>(&address)->sin_addr;
    } else if (address.ss_family == AF_INET6) {
      ip = &reinterpret_cast<sockaddr_in6*>(&address)->sin6_addr;
    }
    if (ip && inet_ntop(address.ss_family, ip, text, sizeof text)) {
      out->append(text);
      return;
    }
  }
  out->push_back('-');
}

void Escape(std::string_view text, std::string* out) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  for (char c : text) {
    if (c > ' ' && c < 0x7f && c != '"' && c != '\\') {
      out->push_back(c);
    } else {
      unsigned char byte = static_cast<unsigned char>(c);
      out->append({'\\', 'x', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<AccessLog>> AccessLog::Open(
    const std::string& path) {
  int fd = open(path.c_str(),
                O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
  if (fd < 0) {
    return absl::ErrnoToStatus(errno, "cannot open access log " + path);
  }
  return std::unique_ptr<AccessLog>(new AccessLog(fd));
}

AccessLog::~AccessLog() {
  Flush();
  close(fd_);
}

void AccessLog::Append(const Record& record, std::string* out) {
  AppendPeer(out, record.fd);
  out->append(" [").append(record.date).append("] \"");
  Escape(record.method, out);
  out->push_back(' ');
  Escape(record.target.substr(0, kMaxTarget), out);
  out->append("\" ");
  AppendNumber(out, static_cast<uint64_t>(record.status));
  out->push_back(' ');
  AppendNumber(out, record.bytes);
  out->push_back(' ');
  AppendNumber(out, static_cast<uint64_t>(record.duration_ns / 1000));
}

void AccessLog::Write(const Record& record) {
  Append(record, &buffer_);
  buffer_.push_back('\n');
  ++lines_;
  // The longest line fits into a quarter of the buffer.
  if (buffer_.size() > kBuffer * 3 / 4) Flush();
}

void AccessLog::Flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    ssize_t n = write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      dropped_ += lines_;
      break;
    }
    done += static_cast<size_t>(n);
  }
  buffer_.clear();
  lines_ = 0;
}

}  // namespace kevent::log
