// SPDX-License-Identifier: Apache-2.0
//
// keventd serves a real tree byte for byte. KEVENT_FULL=1 walks all of it.

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/http/test_client.h"
#include "server/keventd/test_daemon.h"
#include "server/loop/test_util.h"

namespace kevent::keventd {
namespace {

namespace fs = std::filesystem;
using http::ClientResponse;
using http::LoadRequest;
using http::TestClient;

constexpr size_t kAtLeast = 5000;
constexpr size_t kAtMost = 6000;

struct Item {
  std::string path;    // below the root
  std::string target;  // percent-encoded
  int status = 200;    // that GET must have
  std::string etag, modified;
};

std::string Encode(std::string_view path) {
  std::string out = "/";
  for (unsigned char c : path) {
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
        (c >= '0' && c <= '9') || strchr("/-._~", c)) {
      out += static_cast<char>(c);
    } else {
      char escaped[4];
      snprintf(escaped, sizeof escaped, "%%%02x", c);
      out += escaped;
    }
  }
  return out;
}

std::deque<std::string> Split(const std::string& path) {
  std::deque<std::string> parts;
  std::istringstream in(path);
  for (std::string part; std::getline(in, part, '/');) parts.push_back(part);
  return parts;
}

// What a server must answer that follows links only beneath the root.
int StatusBeneath(const std::string& root, const std::string& path) {
  std::deque<std::string> left = Split(path);
  std::vector<std::string> at;
  struct stat st = {};
  stat(root.c_str(), &st);
  auto full = [&] {
    std::string name = root;
    for (const std::string& part : at) name += "/" + part;
    return name;
  };
  for (int links = 0; !left.empty();) {
    std::string part = left.front();
    left.pop_front();
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (at.empty()) return 404;
      at.pop_back();
    } else {
      at.push_back(part);
    }
    if (lstat(full().c_str(), &st) < 0) return 404;
    if (!S_ISLNK(st.st_mode)) continue;
    char to[PATH_MAX];
    ssize_t n = readlink(full().c_str(), to, sizeof to);
    if (n <= 0 || to[0] == '/' || ++links > 40) return 404;
    at.pop_back();
    std::deque<std::string> parts =
        Split(std::string(to, static_cast<size_t>(n)));
    left.insert(left.begin(), parts.begin(), parts.end());
  }
  if (S_ISDIR(st.st_mode)) return 301;
  if (!S_ISREG(st.st_mode)) return 404;
  return access(full().c_str(), R_OK) == 0 ? 200 : 403;
}

struct Tree {
  std::string root;
  std::vector<Item> files;  // that can be read
  std::vector<Item> links;
};

void Collect(const std::string& root, const std::string& below, Tree* tree) {
  std::error_code error;
  auto options = fs::directory_options::skip_permission_denied;
  for (fs::recursive_directory_iterator it(root + below, options, error), end;
       !error && it != end; it.increment(error)) {
    const std::string name = it->path().string();
    // The server refuses control characters.
    if (std::any_of(name.begin(), name.end(),
                    [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
      continue;
    }
    Item item;
    item.path = name.substr(root.size() + 1);
    item.target = Encode(item.path);
    if (it->is_symlink(error)) {
      item.status = StatusBeneath(root, item.path);
      tree->links.push_back(std::move(item));
    } else if (it->is_regular_file(error) && access(name.c_str(), R_OK) == 0) {
      tree->files.push_back(std::move(item));
    }
  }
}

template <typename T>
void Sort(std::vector<T>* items) {
  std::sort(items->begin(), items->end(),
            [](const T& a, const T& b) { return a.path < b.path; });
}

// Evenly spread ones.
void Thin(std::vector<Item>* items, size_t most) {
  if (items->size() <= most) return;
  std::vector<Item> kept;
  for (size_t i = 0; i < most; ++i) {
    kept.push_back(std::move((*items)[i * items->size() / most]));
  }
  *items = std::move(kept);
}

// For machines that have next to nothing below /usr.
std::string MakeTree() {
  const char* folder = getenv("TEST_TMPDIR");
  const std::string root =
      std::string(folder && *folder ? folder : "/tmp") + "/tree";
  std::string bytes(300'000, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<char>(i * i / 7 + i);
  }
  std::error_code error;
  for (size_t i = 0; i < kAtLeast + 100; ++i) {
    const std::string at = root + "/folder " + std::to_string(i % 97);
    fs::create_directories(at, error);
    const std::string name = at + "/fil\xc3\xa9-" + std::to_string(i) + ".txt";
    // Mostly small, and around the edges of pages and of what is sent at once.
    size_t size = i * 37 % 20'000;
    if (i % 11 == 0) size = (1 + i % 5) * 4096 - i / 11 % 3;
    if (i % 211 == 0) size = 200'000 + i;
    FILE* file = fopen(name.c_str(), "w");
    if (!file) break;
    fwrite(bytes.data() + i % 256, 1, size, file);
    fclose(file);
    if (i % 50 == 0) fs::create_symlink(name, name + ".absolute", error);
    if (i % 50 == 1) {
      fs::create_symlink(fs::path(name).filename(), name + ".link", error);
    }
  }
  return root;
}

const Tree& TheTree() {
  static const Tree* const kTree = [] {
    auto* tree = new Tree;
    const char* full = getenv("KEVENT_FULL");
    if (full && *full && *full != '0') {
      tree->root = "/usr";
      Collect("/usr", "/share/doc", tree);
      Collect("/usr", "/include", tree);
    } else {
      for (const char* root :
           {"/usr/share/doc", "/usr/include", "/usr/share", "/usr"}) {
        *tree = Tree();
        tree->root = root;
        Collect(root, "", tree);
        if (tree->files.size() >= kAtLeast) break;
      }
      if (tree->files.size() < kAtLeast) {
        *tree = Tree();
        tree->root = MakeTree();
        Collect(tree->root, "", tree);
      }
      Sort(&tree->files);
      Sort(&tree->links);
      Thin(&tree->files, kAtMost);
      Thin(&tree->links, kAtMost);
    }
    printf("%zu files and %zu links of %s\n", tree->files.size(),
           tree->links.size(), tree->root.c_str());
    return tree;
  }();
  return *kTree;
}

std::string Contents(const std::string& path) {
  std::string text;
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  struct stat st;
  if (fstat(fd, &st) == 0) text.resize(static_cast<size_t>(st.st_size));
  size_t done = 0;
  for (ssize_t n; done < text.size() &&
                  (n = read(fd, text.data() + done, text.size() - done)) > 0;) {
    done += static_cast<size_t>(n);
  }
  text.resize(done);
  close(fd);
  return text;
}

class WalkTest : public testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    const Tree& tree = TheTree();
    ASSERT_GE(tree.files.size(), kAtLeast)
        << "no system directory has that many files that can be read";
    daemon_ = std::make_unique<TestDaemon>(std::vector<std::string>{
        "--root=" + tree.root, "--listen=127.0.0.1:0",
        "--engine=" + std::string(EngineName(GetParam()))});
    ASSERT_TRUE(daemon_->AwaitReady());
    ASSERT_NE(daemon_->ready_line().find(std::string(EngineName(GetParam()))),
              std::string::npos);
  }
  void TearDown() override {
    if (!daemon_) return;
    daemon_->Signal(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->err();
  }

  std::string Full(const Item& item) const {
    return TheTree().root + "/" + item.path;
  }

  // Asks for every item; `check` returns what is wrong with an answer, or "".
  void Walk(
      const std::vector<Item>& items, size_t connections, size_t depth,
      const std::function<void(const Item&, LoadRequest*)>& make,
      const std::function<std::string(size_t, const ClientResponse&)>& check) {
    size_t asked = 0;
    size_t right = 0;
    size_t wrong = 0;
    std::string error = http::RunLoad(
        daemon_->port(), connections, depth,
        [&](LoadRequest* next) {
          if (asked == items.size()) return false;
          next->tag = asked;
          make(items[asked++], next);
          return true;
        },
        [&](size_t tag, const ClientResponse& r) {
          std::string fault = check(tag, r);
          if (fault.empty()) {
            ++right;
          } else if (++wrong <= 20) {
            ADD_FAILURE() << items[tag].target << ": " << fault << " (status "
                          << r.status << ")";
          }
        });
    EXPECT_EQ(error, "");
    EXPECT_EQ(right, items.size());
  }

  static void Get(const Item& item, LoadRequest* r) {
    r->text = TestClient::Request("GET", item.target);
  }

  std::string CheckWhole(size_t tag, const ClientResponse& r) const {
    if (r.status != 200) return "not served";
    if (r.body != Contents(Full(TheTree().files[tag]))) return "other bytes";
    return "";
  }

  std::unique_ptr<TestDaemon> daemon_;
};

TEST_P(WalkTest, OneConnection) {
  Walk(TheTree().files, 1, 1, Get,
       [this](size_t i, const ClientResponse& r) { return CheckWhole(i, r); });
}

TEST_P(WalkTest, SixtyFourConnections) {
  Walk(TheTree().files, 64, 1, Get,
       [this](size_t i, const ClientResponse& r) { return CheckWhole(i, r); });
}

TEST_P(WalkTest, PipelinedBySixteen) {
  Walk(TheTree().files, 8, 16, Get,
       [this](size_t i, const ClientResponse& r) { return CheckWhole(i, r); });
}

TEST_P(WalkTest, Head) {
  Walk(
      TheTree().files, 64, 1,
      [](const Item& item, LoadRequest* r) {
        r->text = TestClient::Request("HEAD", item.target);
        r->head = true;
      },
      [this](size_t tag, const ClientResponse& r) -> std::string {
        struct stat st;
        if (r.status != 200) return "not served";
        if (stat(Full(TheTree().files[tag]).c_str(), &st) < 0) return "gone";
        if (r.Get("Content-Length") != std::to_string(st.st_size)) {
          return "another length";
        }
        return r.body.empty() ? "" : "a body";
      });
}

TEST_P(WalkTest, Ranges) {
  // The middle third, by what the file is now.
  auto range = [this](const Item& item) {
    struct stat st = {};
    stat(Full(item).c_str(), &st);
    const size_t size = static_cast<size_t>(st.st_size);
    return std::pair<size_t, size_t>(size / 3, size - size / 3);
  };
  Walk(
      TheTree().files, 64, 1,
      [&](const Item& item, LoadRequest* r) {
        auto [first, last] = range(item);
        r->text = TestClient::Request("GET", item.target,
                                      "Range: bytes=" + std::to_string(first) +
                                          "-" + std::to_string(last) + "\r\n");
      },
      [&](size_t tag, const ClientResponse& r) -> std::string {
        const Item& item = TheTree().files[tag];
        const std::string text = Contents(Full(item));
        if (text.empty()) return r.status == 416 ? "" : "not refused";
        if (r.status != 206) return "not partial";
        auto [first, last] = range(item);
        last = std::min(last, text.size() - 1);
        if (r.body != text.substr(first, last - first + 1)) {
          return "other bytes";
        }
        return r.Get("Content-Range") == "bytes " + std::to_string(first) +
                                             "-" + std::to_string(last) + "/" +
                                             std::to_string(text.size())
                   ? ""
                   : "a wrong Content-Range";
      });
}

TEST_P(WalkTest, Conditional) {
  std::vector<Item> items = TheTree().files;
  Walk(
      items, 64, 1,
      [](const Item& item, LoadRequest* r) {
        r->text = TestClient::Request("HEAD", item.target);
        r->head = true;
      },
      [&](size_t tag, const ClientResponse& r) -> std::string {
        items[tag].etag = r.Get("ETag");
        items[tag].modified = r.Get("Last-Modified");
        return items[tag].etag.empty() || items[tag].modified.empty()
                   ? "no validators"
                   : "";
      });
  auto not_modified = [](size_t, const ClientResponse& r) -> std::string {
    return r.status == 304 && r.body.empty() ? "" : "not 304";
  };
  Walk(
      items, 64, 1,
      [](const Item& item, LoadRequest* r) {
        r->text = TestClient::Request("GET", item.target,
                                      "If-None-Match: " + item.etag + "\r\n");
      },
      not_modified);
  Walk(
      items, 64, 1,
      [](const Item& item, LoadRequest* r) {
        r->text = TestClient::Request(
            "GET", item.target, "If-Modified-Since: " + item.modified + "\r\n");
      },
      not_modified);
}

TEST_P(WalkTest, Symlinks) {
  const std::vector<Item>& links = TheTree().links;
  Walk(links, 8, 1, Get,
       [&](size_t tag, const ClientResponse& r) -> std::string {
         const Item& item = links[tag];
         if (r.status != item.status) {
           return "not " + std::to_string(item.status);
         }
         if (r.status == 200 && r.body != Contents(Full(item))) {
           return "other bytes";
         }
         if (r.status == 301 && r.Get("Location") != item.target + "/") {
           return "a wrong Location";
         }
         return "";
       });
}

// Another client's opinion.
TEST_P(WalkTest, CurlSample) {
  Process version({"curl", "--version"});
  if (version.Wait() != 0) GTEST_SKIP() << "curl is not installed";
  const std::string dir = MakeTempDirectory();
  std::vector<Item> items = TheTree().files;
  Thin(&items, 20);
  std::vector<std::string> command = {"curl", "--silent", "--show-error",
                                      "--fail", "--globoff"};
  for (size_t i = 0; i < items.size(); ++i) {
    command.push_back("--output");
    command.push_back(dir + "/" + std::to_string(i));
    command.push_back("http://127.0.0.1:" + std::to_string(daemon_->port()) +
                      items[i].target);
  }
  Process curl(command);
  EXPECT_EQ(curl.Wait(), 0) << curl.err();
  for (size_t i = 0; i < items.size(); ++i) {
    EXPECT_TRUE(Contents(dir + "/" + std::to_string(i)) ==
                Contents(Full(items[i])))
        << items[i].target;
  }
  std::error_code error;
  fs::remove_all(dir, error);
}

INSTANTIATE_FOR_ENGINES(WalkTest);

}  // namespace
}  // namespace kevent::keventd
