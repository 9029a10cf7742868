// SPDX-License-Identifier: Apache-2.0
#include <google/protobuf/util/time_util.h>
#include <string.h>

#include <charconv>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "server/admin/arguments.h"
#include "server/admin/ask.h"
#include "server/admin/errors.h"
#include "server/admin/lists.h"

namespace kevent::admin {
namespace {

using files::Entry;
using files::FileCache;
using google::protobuf::util::TimeUtil;

constexpr size_t kLooks = 256;  // in one closure

using Key = std::pair<std::string, uint32_t>;  // path and variant

absl::Status NoFileCache() {
  return NoSuchFeature("file_cache", "this service has no file cache");
}

struct Found {
  std::map<Key, v1::CacheEntry> entries;  // at most a page
  bool more = false;
  bool has_cache = false;
};

bool IsBelow(std::string_view path, std::string_view prefix) {
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  return prefix.empty() ||
         (path.starts_with(prefix) &&
          (path.size() == prefix.size() || path[prefix.size()] == '/'));
}

void Describe(const Entry& entry, uint32_t worker, v1::CacheEntry* to) {
  to->set_worker(worker);
  to->set_path(EscapePath(entry.path()));
  to->set_variant(entry.variant());
  if (entry.kind() == Entry::Kind::kError) {
    to->set_kind(v1::CacheEntry::MISSING);
    to->set_error(strerrordesc_np(-entry.error()));
    return;
  }
  const bool is_file = entry.kind() == Entry::Kind::kFile;
  to->set_kind(is_file ? v1::CacheEntry::FILE : v1::CacheEntry::DIRECTORY);
  to->set_size(entry.size());
  *to->mutable_modified() =
      TimeUtil::NanosecondsToTimestamp(entry.info().mtime_ns);
  to->set_etag(Ascii(entry.etag()));
  to->set_in_memory(entry.has_body());
  to->set_watched(entry.watched());
}

struct Position {
  uint32_t worker = 0;
  std::optional<Key> after;
};

// "worker-variant-path".
std::string ToToken(uint32_t worker, const Key& key) {
  return std::to_string(worker) + "-" + std::to_string(key.second) + "-" +
         EscapePath(key.first);
}

std::optional<Position> ParseToken(std::string_view text) {
  Position position;
  uint32_t variant = 0;
  for (uint32_t* number : {&position.worker, &variant}) {
    const size_t dash = text.find('-');
    if (dash == std::string_view::npos) return std::nullopt;
    auto [at, error] =
        std::from_chars(text.data(), text.data() + dash, *number);
    if (error != std::errc() || at != text.data() + dash) return std::nullopt;
    text.remove_prefix(dash + 1);
  }
  auto path = UnescapePath(text, "page_token");
  if (!path.ok()) return std::nullopt;
  position.after = {*std::move(path), variant};
  return position;
}

struct Listing {
  Context context;
  std::string prefix;
  size_t page = 0;
  Position from;
  bool any_cache = false;
  v1::ListCacheResponse* response = nullptr;
  FinishFn finish;

  static void Go(std::shared_ptr<Listing> listing);
};

void Listing::Go(std::shared_ptr<Listing> l) {
  const auto& workers = l->context.target->workers;
  if (l->from.worker >= workers.size()) {
    l->finish(l->any_cache ? absl::OkStatus() : NoFileCache());
    return;
  }
  const uint32_t number = l->from.worker;
  const size_t want =
      l->page - static_cast<size_t>(l->response->entries_size());
  auto step = [walk = std::unique_ptr<FileCache::Walk>(), number, want,
               prefix = l->prefix, after = l->from.after,
               keep = l->context.target](Found* found) mutable {
    if (!walk) {
      const Worker& worker = keep->workers[number];
      FileCache* cache = worker.cache ? worker.cache() : nullptr;
      if (!cache) return false;
      found->has_cache = true;
      walk = std::make_unique<FileCache::Walk>(cache);
    }
    return walk->Next(kLooks, [&](const Entry& entry) {
      Key key(entry.path(), entry.variant());
      if (!IsBelow(key.first, prefix) || (after && key <= *after)) return false;
      // Only the first few, in the order of the list, are kept.
      if (found->entries.size() == want &&
          key > std::prev(found->entries.end())->first) {
        found->more = true;
        return false;
      }
      Describe(entry, number, &found->entries[std::move(key)]);
      if (found->entries.size() > want) {
        found->entries.erase(std::prev(found->entries.end()));
        found->more = true;
      }
      return false;
    });
  };
  auto done = [l, number](std::optional<Found> found) mutable {
    if (!found) {
      l->finish(NoAnswer(number));
      return;
    }
    l->any_cache |= found->has_cache;
    for (auto& [key, entry] : found->entries) {
      *l->response->add_entries() = std::move(entry);
    }
    if (found->more) {
      l->response->set_next_page_token(
          ToToken(number, std::prev(found->entries.end())->first));
      l->finish(absl::OkStatus());
      return;
    }
    const bool full =
        static_cast<size_t>(l->response->entries_size()) == l->page;
    if (full && number + 1 < l->context.target->workers.size()) {
      // Behind nothing of the next one.
      l->response->set_next_page_token(std::to_string(number + 1));
      l->finish(absl::OkStatus());
      return;
    }
    l->from = {number + 1, std::nullopt};
    Go(std::move(l));
  };
  Ask<Found>::Start(l->context.loop, l->context.mailbox, workers[number].loop,
                    std::move(step), std::move(done));
}

// A purge of all workers at once.
struct Purging {
  size_t left = 0;
  uint64_t dropped = 0;
  bool any_cache = false;
  absl::Status status;
  FinishFn finish;
  v1::PurgeCacheResponse* response = nullptr;
};

struct Dropped {
  uint64_t count = 0;
  bool has_cache = false;
};

}  // namespace

void ListCache(const Context& context, const v1::ListCacheRequest& request,
               v1::ListCacheResponse* response, FinishFn finish) {
  auto page = ParsePageSize(request.page_size());
  if (!page.ok()) return finish(page.status());
  auto listing = std::make_shared<Listing>();
  if (!request.prefix().empty()) {
    auto prefix = UnescapePath(request.prefix(), "prefix");
    if (!prefix.ok()) return finish(prefix.status());
    listing->prefix = *std::move(prefix);
  }
  if (const std::string& token = request.page_token(); !token.empty()) {
    std::optional<Position> from = ParseToken(token);
    uint32_t worker = 0;
    const char* end = token.data() + token.size();
    if (auto [at, error] = std::from_chars(token.data(), end, worker);
        !from && error == std::errc() && at == end) {
      from = Position{worker, std::nullopt};
    }
    if (!from || from->worker >= context.target->workers.size()) {
      return finish(InvalidField("page_token", "not one of this list"));
    }
    listing->from = *std::move(from);
  }
  listing->context = context;
  listing->page = *page;
  listing->response = response;
  listing->finish = std::move(finish);
  Listing::Go(std::move(listing));
}

void PurgeCache(const Context& context, const v1::PurgeCacheRequest& request,
                v1::PurgeCacheResponse* response, FinishFn finish) {
  std::string path;
  bool below = true;
  switch (request.what_case()) {
    case v1::PurgeCacheRequest::kPath:
    case v1::PurgeCacheRequest::kPrefix: {
      below = request.what_case() == v1::PurgeCacheRequest::kPrefix;
      auto parsed = below ? UnescapePath(request.prefix(), "prefix")
                          : UnescapePath(request.path(), "path");
      if (!parsed.ok()) return finish(parsed.status());
      path = *std::move(parsed);
      break;
    }
    case v1::PurgeCacheRequest::kAll:
      if (request.all()) break;
      [[fallthrough]];
    default:
      return finish(
          InvalidField("what", "name what to purge: path, prefix, or all"));
  }
  auto purging = std::make_shared<Purging>();
  purging->left = context.target->workers.size();
  purging->finish = std::move(finish);
  purging->response = response;
  for (uint32_t i = 0; i < context.target->workers.size(); ++i) {
    auto step = [walk = std::unique_ptr<FileCache::Walk>(), i, path, below,
                 keep = context.target](Dropped* dropped) mutable {
      if (!walk) {
        const Worker& worker = keep->workers[i];
        FileCache* cache = worker.cache ? worker.cache() : nullptr;
        if (!cache) return false;
        dropped->has_cache = true;
        walk = std::make_unique<FileCache::Walk>(cache);
      }
      return walk->Next(kLooks, [&](const Entry& entry) {
        const bool drop =
            below ? IsBelow(entry.path(), path) : entry.path() == path;
        dropped->count += drop;
        return drop;
      });
    };
    Ask<Dropped>::Start(context.loop, context.mailbox,
                        context.target->workers[i].loop, std::move(step),
                        [purging, i](std::optional<Dropped> dropped) {
                          if (dropped) {
                            purging->dropped += dropped->count;
                            purging->any_cache |= dropped->has_cache;
                          } else {
                            purging->status = NoAnswer(i);
                          }
                          if (--purging->left > 0) return;
                          purging->response->set_dropped(purging->dropped);
                          if (purging->status.ok() && !purging->any_cache) {
                            purging->status = NoFileCache();
                          }
                          purging->finish(purging->status);
                        });
  }
}

}  // namespace kevent::admin
