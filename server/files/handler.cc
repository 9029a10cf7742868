// SPDX-License-Identifier: Apache-2.0
#include "server/files/handler.h"

#include <errno.h>

#include <array>
#include <cstring>
#include <utility>

#include "server/files/listing.h"
#include "server/http/conditional.h"
#include "server/http/range.h"
#include "server/http/response.h"

namespace kevent::files {

using http::Exchange;
using http::Method;
using http::Request;

namespace {

constexpr std::string_view kAllow = "Allow: GET, HEAD\r\n";

// Entry::owner_data: [0] where the date stands in the head, and in the upper
// half how many responses are under way that read it; [1] the date's second. Of
// a body in pages: [2] the generation of the text that is lent; [3] its uses,
// and kWhole if the body is part of it.
constexpr uint32_t kInFlight = 1u << 16;
constexpr uint32_t kWhole = 1u << 31;

// A body is copied behind its head after a use for each so many of its bytes.
// One reference instead of two saves what copying 2 KiB takes.
constexpr size_t kBytesPerUse = 512;

// Of a body in pages, from where on a head that is of this response alone is
// put where it can be lent, so that the body need not be copied.
constexpr size_t kLeastToLend = size_t{32} << 10;

// For a slab of such copies, at least.
constexpr uint32_t kSecondsForSlab = 2;

uint32_t DateOffset(const Entry& entry) { return entry.owner_data[0] & 0xffff; }

// Lends an entry to a response, which gives it back when it is out.
http::Release Lend(EntryRef entry) {
  Entry* e = entry.Detach();
  e->owner_data[0] += kInFlight;
  return {[](void* p) {
            EntryRef back = EntryRef::Attach(static_cast<Entry*>(p));
            back->owner_data[0] -= kInFlight;
          },
          e};
}

// The same with a text of the arena that it owns.
http::Release LendText(const char* text, EntryRef entry) {
  TextArena::Lend(text);
  entry.Detach();
  return {[](void* p) {
            const char* text = static_cast<const char*>(p);
            EntryRef::Attach(static_cast<Entry*>(TextArena::Owner(text)));
            TextArena::Return(text);
          },
          const_cast<char*>(text)};
}

// Bodies go by reference where that saves the copy.
FileCache::Options CacheOptions(loop::Loop* loop,
                                const FileCache::Options& options) {
  FileCache::Options result = options;
  if (!loop->queue().sends_by_reference()) result.max_page_bytes = 0;
  return result;
}

bool Unconditional(const Request& r) {
  return !r.if_none_match.data() && !r.if_modified_since.data() &&
         !r.range.data() && !r.if_match.data() && !r.if_unmodified_since.data();
}

}  // namespace

StaticHandler::StaticHandler(loop::Loop* loop, const Root* root,
                             const MimeTypes* mime, const Options& options)
    : loop_(loop),
      root_(root),
      mime_(mime),
      options_(options),
      source_(loop),
      cache_(
          root, &source_,
          [this](Entry& entry, std::string* head) { MakeHead(entry, head); },
          CacheOptions(loop, options.cache)) {
  source_.SetCache(&cache_);
}

StaticHandler::~StaticHandler() { source_.SetCache(nullptr); }

void StaticHandler::MakeHead(Entry& entry, std::string* head) {
  if (entry.kind() != Entry::Kind::kFile) return;
  char buffer[1024];
  http::ResponseHead out(buffer);
  out.Status(200);
  if (!options_.server_name.empty()) out.Append("Server", options_.server_name);
  uint32_t date = static_cast<uint32_t>(out.size() + strlen("Date: "));
  out.Append("Date", "Thu, 01 Jan 1970 00:00:00 GMT");
  out.Append("Content-Type", mime_->Lookup(entry.path()));
  out.Append("Content-Length", entry.size());
  out.Append("Last-Modified", entry.last_modified());
  out.Append("ETag", entry.etag());
  out.AppendRaw("Accept-Ranges: bytes\r\n");
  head->append(out.Finish());
  entry.owner_data = {date};
}

void StaticHandler::RespondErrno(Exchange* x, int error) {
  switch (-error) {
    case EACCES:
    case EPERM:
      x->RespondError(403);
      return;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EAGAIN:
      x->RespondError(503);
      return;
    // What is not there, what is neither file nor directory, and what lies
    // behind a link that leads out of the root.
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ENXIO:
    case EXDEV:
    case ELOOP:
      x->RespondError(404);
      return;
    default:
      x->RespondError(500);
  }
}

void StaticHandler::Handle(Exchange* x) {
  const Request& r = x->request();
  if (r.method != Method::kGet && r.method != Method::kHead) {
    if (r.method == Method::kOther) {
      x->RespondError(501);
    } else {
      x->RespondError(405, kAllow);
    }
    return;
  }
  std::array<char, http::Limits::kMaxHeaderBytes> buffer;
  RequestPath path;
  switch (CleanPath(r.path, buffer, &path)) {
    case PathStatus::kOk:
      break;
    case PathStatus::kTooLong:
      x->RespondError(414);
      return;
    default:
      x->RespondError(400);
      return;
  }
  int error;
  EntryRef entry = cache_.Get(path.path, loop_->now_ns(), &error);
  if (!entry) {
    RespondErrno(x, error);
    return;
  }
  if (entry->kind() == Entry::Kind::kDirectory) {
    ServeDirectory(x, path);
  } else if (path.directory) {
    x->RespondError(404);
  } else {
    ServeFile(x, std::move(entry));
  }
}

void StaticHandler::ServeDirectory(Exchange* x, const RequestPath& path) {
  const Request& r = x->request();
  if (!path.directory) {
    // The target as the client wrote it, so that escapes stay escaped. A path
    // that begins with two slashes would be taken for another host, and
    // browsers take a backslash for a slash.
    std::string_view raw = r.path;
    while (raw.size() > 1 && raw[1] == '/') raw.remove_prefix(1);
    std::string location;
    for (char c : raw) {
      if (c == '\\') {
        location += "%5C";
      } else {
        location += c;
      }
    }
    location += '/';
    if (r.query.data()) location += "?" + std::string(r.query);
    x->Redirect(301, location);
    return;
  }
  for (const std::string& name : options_.index) {
    std::string file(path.path);
    if (!file.empty()) file += '/';
    file += name;
    int error;
    EntryRef entry = cache_.Get(file, loop_->now_ns(), &error);
    if (entry && entry->kind() == Entry::Kind::kFile) {
      ServeFile(x, std::move(entry));
      return;
    }
    if (!entry && error != -ENOENT && error != -ENOTDIR) {
      RespondErrno(x, error);
      return;
    }
  }
  if (!options_.listing) {
    x->RespondError(403);
    return;
  }
  std::string page;
  int error = MakeListing(*root_, std::string(path.path), &page);
  if (error < 0) {
    RespondErrno(x, error);
  } else {
    x->Reply(200, "text/html; charset=utf-8", std::move(page));
  }
}

void StaticHandler::ServeFile(Exchange* x, EntryRef entry) {
  const Request& r = x->request();
  if (Unconditional(r)) {
    ServeWhole(x, std::move(entry));
    return;
  }
  http::Validators validators;
  validators.etag = entry->etag();
  validators.last_modified = entry->last_modified_s();
  switch (http::Evaluate(r, validators)) {
    case http::Precondition::kNotModified:
      NotModified(x, *entry);
      return;
    case http::Precondition::kFailed:
      x->RespondError(412);
      return;
    default:
      break;
  }
  if (r.method == Method::kGet && r.range.data() &&
      http::IfRange(r.if_range, validators, x->unix_time())) {
    std::array<http::ByteRange, http::kMaxRanges> ranges;
    http::RangeResult result =
        http::ParseRange(r.range, entry->size(), &ranges);
    if (result.kind == http::RangeResult::Kind::kUnsatisfiable) {
      char value[http::kMaxContentRange];
      std::string field = "Content-Range: ";
      field += http::FormatUnsatisfiedRange(entry->size(), value);
      field += "\r\n";
      x->RespondError(416, field);
      return;
    }
    if (result.kind == http::RangeResult::Kind::kSatisfiable &&
        result.count == 1) {
      ServeRange(x, std::move(entry), ranges[0].first, ranges[0].length);
      return;
    }
  }
  ServeWhole(x, std::move(entry));
}

// Sees to the date in the ready-made head; false if a response under way still
// reads it.
bool StaticHandler::RefreshDate(Exchange* x, Entry* entry) {
  uint32_t second = static_cast<uint32_t>(x->unix_time());
  if (entry->owner_data[1] == second) return true;
  if (entry->owner_data[0] >= kInFlight) return false;
  std::string_view date = x->date();
  memcpy(entry->mutable_head() + DateOffset(*entry), date.data(), date.size());
  entry->owner_data[1] = second;
  return true;
}

// Writes the head with the date of now, and `body` behind it.
bool StaticHandler::MakeText(Exchange* x, Entry* entry, std::string_view body,
                             TextArena* arena) {
  const std::string_view head = entry->head();
  char* const text = arena->New(head.size() + body.size(), entry);
  if (text == nullptr) return false;
  memcpy(text, head.data(), head.size());
  const std::string_view date = x->date();
  memcpy(text + DateOffset(*entry), date.data(), date.size());
  if (!body.empty()) memcpy(text + head.size(), body.data(), body.size());
  entry->owner_text = text;
  entry->owner_data[2] = arena->generation();
  return true;
}

// There is a new slab every few seconds at most: clients that do not read keep
// slabs, by a part of them, for as long as they are not reset.
bool StaticHandler::MakeWhole(Exchange* x, Entry* entry, uint32_t second) {
  const size_t size = entry->head().size() + entry->body().size();
  if (size > TextArena::kMaxText) return false;
  if (!wholes_.HasRoom(size)) {
    if (second - wholes_slab_ < kSecondsForSlab) return false;
    wholes_slab_ = second;
  }
  if (!MakeText(x, entry, entry->body(), &wholes_)) return false;
  ++wholes_made_;
  return true;
}

// The ready-made head with the date of now, in memory that stays as it is; with
// the body behind it if it is asked for so often that the copy pays: the socket
// takes one piece for less than two. Empty if there is no memory to be had.
std::string_view StaticHandler::Prepare(Exchange* x, Entry* entry) {
  uint32_t& dated = entry->owner_data[1];
  uint32_t& uses = entry->owner_data[3];
  const size_t head = entry->head().size();
  const size_t body = entry->body().size();
  const uint32_t second = static_cast<uint32_t>(x->unix_time());
  const bool was_whole = uses & kWhole;
  const bool made =
      dated == second && entry->owner_text != nullptr &&
      entry->owner_data[2] == (was_whole ? wholes_ : heads_).generation();
  ++uses;
  if (made && was_whole) return {entry->owner_text, head + body};
  const size_t pays = body / kBytesPerUse;
  if (made && uses < pays) return {entry->owner_text, head};
  // A copy that was lost with its slab must have paid before there is another.
  // In the second before as often as that, and again: it will be in this one.
  const size_t used = uses & ~kWhole;
  const bool often = dated == second
                         ? used >= pays
                         : dated + 1 == second && was_whole && used >= 2 * pays;
  uses = 0;
  dated = second;
  if (often && MakeWhole(x, entry, second)) {
    uses = kWhole;
    return {entry->owner_text, head + body};
  }
  if ((!made || was_whole) && !MakeText(x, entry, {}, &heads_)) {
    entry->owner_text = nullptr;
    return {};
  }
  return {entry->owner_text, head};
}

void StaticHandler::ServeWhole(Exchange* x, EntryRef ref) {
  Entry* entry = ref.get();
  const bool head_only = x->request().method == Method::kHead;
  std::string_view head = entry->head();
  std::string_view connection = x->connection_field();
  if (entry->in_pages() && !head_only && connection.empty()) {
    const std::string_view text = Prepare(x, entry);
    if (!text.empty()) {
      const bool whole = text.size() > head.size();
      const std::string_view pieces[] = {
          text, whole ? std::string_view() : entry->body()};
      x->RespondByReference(200, pieces, LendText(text.data(), std::move(ref)));
      return;
    }
  }
  const bool ready =
      !entry->in_pages() && RefreshDate(x, entry) && connection.empty();
  if (!ready) {
    std::span<char> scratch = x->scratch();
    if (head.size() + connection.size() > scratch.size()) {
      x->RespondError(500);
      return;
    }
    char* out = scratch.data();
    memcpy(out, head.data(), head.size());
    std::string_view date = x->date();
    memcpy(out + DateOffset(*entry), date.data(), date.size());
    // Before the empty line.
    out += head.size() - 2;
    memcpy(out, connection.data(), connection.size());
    memcpy(out + connection.size(), "\r\n", 2);
    head = {scratch.data(), head.size() + connection.size()};
  }
  if (head_only || entry->size() == 0) {
    x->Respond(200, {&head, 1}, Lend(std::move(ref)));
  } else if (!entry->has_body()) {
    int64_t size = static_cast<int64_t>(entry->size());
    int fd = entry->fd();
    x->RespondFile(200, head, fd, 0, size, Lend(std::move(ref)), &entry->memo);
  } else if (ready) {
    std::string_view all = entry->head_and_body();
    x->Respond(200, {&all, 1}, Lend(std::move(ref)));
  } else {
    RespondBody(x, 200, head, entry->body(), std::move(ref));
  }
}

// With a head that is at the beginning of the exchange's scratch.
void StaticHandler::RespondBody(Exchange* x, int status, std::string_view head,
                                std::string_view body, EntryRef entry) {
  if (entry->in_pages() && body.size() >= kLeastToLend) {
    if (char* const text = heads_.New(head.size(), entry.get())) {
      memcpy(text, head.data(), head.size());
      const std::string_view pieces[] = {{text, head.size()}, body};
      x->RespondByReference(status, pieces, LendText(text, std::move(entry)));
      return;
    }
  }
  const std::span<char> behind = x->scratch().subspan(head.size());
  if (body.size() <= behind.size()) {
    // To copy so little is cheaper than to have the kernel gather it.
    memcpy(behind.data(), body.data(), body.size());
    head = {head.data(), head.size() + body.size()};
    x->Respond(status, {&head, 1});
    return;
  }
  const std::string_view pieces[] = {head, body};
  x->Respond(status, pieces, Lend(std::move(entry)));
}

void StaticHandler::ServeRange(Exchange* x, EntryRef entry, uint64_t first,
                               uint64_t length) {
  http::ResponseHead out(x->scratch());
  out.Status(206);
  if (!options_.server_name.empty()) out.Append("Server", options_.server_name);
  out.Append("Date", x->date());
  out.Append("Content-Type", mime_->Lookup(entry->path()));
  out.Append("Content-Length", length);
  char value[http::kMaxContentRange];
  out.Append("Content-Range",
             http::FormatContentRange({first, length}, entry->size(), value));
  out.Append("Last-Modified", entry->last_modified());
  out.Append("ETag", entry->etag());
  out.AppendRaw(x->connection_field());
  std::string_view head = out.Finish();
  if (head.empty()) {
    x->RespondError(500);
    return;
  }
  if (entry->has_body()) {
    const std::string_view body = entry->body().substr(first, length);
    RespondBody(x, 206, head, body, std::move(entry));
  } else {
    int fd = entry->fd();
    FileMemo* memo = &entry->memo;
    x->RespondFile(206, head, fd, static_cast<int64_t>(first),
                   static_cast<int64_t>(length), Lend(std::move(entry)), memo);
  }
}

void StaticHandler::NotModified(Exchange* x, const Entry& entry) {
  http::ResponseHead out(x->scratch());
  out.Status(304);
  if (!options_.server_name.empty()) out.Append("Server", options_.server_name);
  out.Append("Date", x->date());
  out.Append("Last-Modified", entry.last_modified());
  out.Append("ETag", entry.etag());
  out.AppendRaw(x->connection_field());
  std::string_view head = out.Finish();
  x->Respond(304, {&head, 1});
}

}  // namespace kevent::files
