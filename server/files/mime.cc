// SPDX-License-Identifier: Apache-2.0
#include "server/files/mime.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"

namespace kevent::files {
namespace {

// The longest extension in Debian's table has 25 letters.
constexpr size_t kMaxExtension = 32;

// What browsers need. The values follow the IANA registry, RFC 9239
// (JavaScript) and the WHATWG MIME Sniffing standard.
constexpr char kBuiltIn[] = R"(
application/atom+xml          atom
application/gzip              gz
application/json              json map
application/ld+json           jsonld
application/manifest+json     webmanifest
application/pdf               pdf
application/rss+xml           rss
application/vnd.apple.mpegurl m3u8
application/vnd.ms-fontobject eot
application/wasm              wasm
application/x-7z-compressed   7z
application/x-bzip2           bz2
application/x-tar             tar
application/x-xz              xz
application/xhtml+xml         xhtml
application/xml               xml xsl
application/yaml              yaml yml
application/zip               zip
application/zstd              zst
audio/flac                    flac
audio/mp4                     m4a
audio/mpeg                    mp3
audio/ogg                     oga ogg opus
audio/wav                     wav
font/otf                      otf
font/ttf                      ttf
font/woff                     woff
font/woff2                    woff2
image/avif                    avif
image/bmp                     bmp
image/gif                     gif
image/jpeg                    jpeg jpg
image/jxl                     jxl
image/png                     png
image/svg+xml                 svg
image/tiff                    tif tiff
image/vnd.microsoft.icon      ico
image/webp                    webp
text/calendar                 ics
text/css                      css
text/csv                      csv
text/html                     htm html
text/javascript               js mjs
text/markdown                 markdown md
text/plain                    log text txt
text/vtt                      vtt
video/mp2t                    m2ts
video/mp4                     m4v mp4
video/mpeg                    mpeg mpg
video/ogg                     ogv
video/quicktime               mov
video/webm                    webm
)";

char Lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool IsTokenByte(char c) {
  // RFC 9110 section 5.6.2.
  if ((c >= '0' && c <= '9') || (Lower(c) >= 'a' && Lower(c) <= 'z')) {
    return true;
  }
  return c != '\0' &&
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

// type "/" subtype, nothing else: it goes into a header as it is.
bool IsMediaType(std::string_view type) {
  const size_t slash = type.find('/');
  if (slash == std::string_view::npos || slash == 0 ||
      slash + 1 == type.size()) {
    return false;
  }
  for (size_t i = 0; i < type.size(); ++i) {
    if (i != slash && !IsTokenByte(type[i])) return false;
  }
  return true;
}

bool IsText(std::string_view type) {
  return type.starts_with("text/") || type == "application/javascript" ||
         type == "application/ecmascript";
}

std::string_view NextWord(std::string_view* line) {
  constexpr std::string_view kBlank = " \t\r\f\v";
  const size_t begin = line->find_first_not_of(kBlank);
  if (begin == std::string_view::npos) {
    *line = {};
    return {};
  }
  line->remove_prefix(begin);
  const std::string_view word = line->substr(0, line->find_first_of(kBlank));
  line->remove_prefix(word.size());
  return word;
}

}  // namespace

size_t MimeTypes::Hash::operator()(std::string_view text) const {
  return absl::Hash<absl::string_view>()(
      absl::string_view(text.data(), text.size()));
}

MimeTypes::MimeTypes() { Parse(kBuiltIn); }

MimeTypes MimeTypes::Load(const std::string& file, bool* loaded) {
  MimeTypes types;
  std::ifstream stream(file, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(stream),
                   std::istreambuf_iterator<char>()};
  const bool read = stream.is_open() && !stream.bad();
  if (read) types.Parse(std::move(text));
  if (loaded != nullptr) *loaded = read;
  return types;
}

void MimeTypes::Parse(std::string text) {
  for (char& c : text) c = Lower(c);
  texts_.emplace_back(text.begin(), text.end());
  std::string_view rest(texts_.back().data(), texts_.back().size());
  while (!rest.empty()) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    line = line.substr(0, line.find('#'));
    std::string_view type = NextWord(&line);
    if (!IsMediaType(type)) continue;
    bool stored = !IsText(type);
    for (std::string_view extension = NextWord(&line); !extension.empty();
         extension = NextWord(&line)) {
      if (!stored) {
        const std::string full = std::string(type) + "; charset=utf-8";
        texts_.emplace_back(full.begin(), full.end());
        type = std::string_view(texts_.back().data(), texts_.back().size());
        stored = true;
      }
      Add(type, extension);
    }
  }
}

void MimeTypes::Add(std::string_view type, std::string_view extension) {
  if (extension.size() > kMaxExtension) return;
  types_[extension] = type;
}

std::string_view MimeTypes::Lookup(std::string_view path) const {
  size_t begin = path.size();
  while (true) {
    if (begin == 0 || path[begin - 1] == '/') return kDefault;
    if (path[begin - 1] == '.') break;
    if (path.size() - begin == kMaxExtension) return kDefault;
    --begin;
  }
  std::array<char, kMaxExtension> buffer;
  const size_t length = path.size() - begin;
  for (size_t i = 0; i < length; ++i) buffer[i] = Lower(path[begin + i]);
  const auto found = types_.find(std::string_view(buffer.data(), length));
  return found == types_.end() ? kDefault : found->second;
}

}  // namespace kevent::files
