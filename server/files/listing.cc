// SPDX-License-Identifier: Apache-2.0
#include "server/files/listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <utility>
#include <vector>

namespace kevent::files {
namespace {

struct Item {
  std::string name;
  bool directory;
  uint64_t size;
  time_t mtime;
};

void AppendText(std::string_view text, std::string* out) {
  for (char c : text) {
    switch (c) {
      case '&':
        *out += "&amp;";
        break;
      case '<':
        *out += "&lt;";
        break;
      case '>':
        *out += "&gt;";
        break;
      case '"':
        *out += "&quot;";
        break;
      default:
        // Control characters have no place in HTML.
        *out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    }
  }
}

// One segment of a relative reference. "./" before it keeps a colon in the name
// from being read as a scheme (RFC 3986 section 4.2).
void AppendLink(const Item& item, std::string* out) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  *out += "./";
  for (char c : item.name) {
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
        (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' ||
        c == '~') {
      out->push_back(c);
    } else {
      unsigned char byte = static_cast<unsigned char>(c);
      out->append({'%', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
  if (item.directory) out->push_back('/');
}

void AppendSize(uint64_t bytes, std::string* out) {
  static constexpr const char* kUnits[] = {"", " KiB", " MiB", " GiB", " TiB"};
  size_t unit = 0;
  double value = static_cast<double>(bytes);
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  snprintf(text, sizeof text, unit ? "%.1f%s" : "%.0f%s", value, kUnits[unit]);
  *out += text;
}

constexpr std::string_view kStyle =
    "<style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;"
    "max-width:60rem;padding:0 1rem;color-scheme:light dark}"
    "table{border-collapse:collapse;width:100%}"
    "td{padding:.15rem .5rem;border-top:1px solid #8884}"
    "td+td{text-align:right;white-space:nowrap;opacity:.7}"
    "td:first-child{overflow-wrap:anywhere}</style>";

}  // namespace

int MakeListing(const Root& root, const std::string& path, std::string* page) {
  OpenedFile file;
  if (int r = root.Open(path.c_str(), &file); r < 0) return r;
  if (!file.is_directory()) return -ENOTDIR;
  // Reading needs a descriptor with a position of its own.
  int fd = openat(file.fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  DIR* directory = fdopendir(fd);
  if (!directory) {
    int error = errno;
    OpenedFile close_it(fd);
    return -error;
  }
  std::vector<Item> items;
  bool more = false;
  while (dirent* e = readdir(directory)) {
    if (e->d_name[0] == '.') continue;
    if (items.size() == kMaxListed) {
      more = true;
      break;
    }
    struct stat st;
    if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) continue;
    // A link's own data say nothing; whether it leads out shows when it is
    // used.
    if (S_ISLNK(st.st_mode)) {
      OpenedFile target;
      std::string below = path.empty() ? "" : path + "/";
      if (root.Stat((below + e->d_name).c_str(), &target) < 0) continue;
      if (!target.is_directory() && !target.is_regular()) continue;
      items.push_back({e->d_name, target.is_directory(), target.info.size,
                       static_cast<time_t>(target.info.mtime_ns / 1000000000)});
      continue;
    }
    if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode)) continue;
    items.push_back({e->d_name, S_ISDIR(st.st_mode),
                     static_cast<uint64_t>(st.st_size), st.st_mtime});
  }
  closedir(directory);
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return std::make_pair(!a.directory, std::string_view(a.name)) <
           std::make_pair(!b.directory, std::string_view(b.name));
  });

  page->clear();
  *page +=
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width\"><title>/";
  AppendText(path, page);
  *page += "</title>";
  *page += kStyle;
  *page += "</head>\n<body><h1>/";
  AppendText(path, page);
  *page += "</h1>\n<table>\n";
  if (!path.empty()) *page += "<tr><td><a href=\"../\">../</a></td></tr>\n";
  for (const Item& item : items) {
    *page += "<tr><td><a href=\"";
    AppendLink(item, page);
    *page += "\">";
    AppendText(item.name, page);
    if (item.directory) *page += '/';
    *page += "</a></td><td>";
    if (!item.directory) AppendSize(item.size, page);
    *page += "</td><td>";
    tm time;
    char text[32];
    gmtime_r(&item.mtime, &time);
    strftime(text, sizeof text, "%Y-%m-%d %H:%M", &time);
    *page += text;
    *page += "</td></tr>\n";
  }
  *page += "</table>\n";
  if (more) *page += "<p>There are more entries than are listed here.</p>\n";
  *page += "</body></html>\n";
  return 0;
}

}  // namespace kevent::files
