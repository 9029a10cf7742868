// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_FILES_MIME_H_
#define SERVER_FILES_MIME_H_

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace kevent::files {

// Maps file names to values of Content-Type (RFC 9110 section 8.3).
//
// Immutable once made, so any number of threads may look up at once. Movable;
// a move leaves the views it gave out valid.
class MimeTypes {
 public:
  // Where Debian's package media-types puts its table.
  static constexpr char kSystemFile[] = "/etc/mime.types";
  static constexpr std::string_view kDefault = "application/octet-stream";

  // Only the types that the web itself needs (about 50).
  MimeTypes();

  // Reads `file`, in the format of mime.types: on each line a media type and
  // its extensions without the dot, '#' begins a comment, the last line that
  // names an extension wins. Extensions the file lacks have the built-in
  // types; so has everything if it cannot be read (`*loaded`, where given,
  // says whether it was). Lines that are no valid media type are skipped.
  static MimeTypes Load(const std::string& file, bool* loaded = nullptr);

  MimeTypes(MimeTypes&&) = default;
  MimeTypes& operator=(MimeTypes&&) = default;

  // The Content-Type for the last extension of `path`, in any case of letters;
  // kDefault if it has none or an unknown one. text/* and JavaScript come with
  // "; charset=utf-8". Allocates nothing; the view lives as long as the table.
  std::string_view Lookup(std::string_view path) const;

  // Number of extensions known.
  size_t size() const { return types_.size(); }

 private:
  struct Hash {
    size_t operator()(std::string_view text) const;
  };

  void Parse(std::string text);
  void Add(std::string_view type, std::string_view extension);

  // Keys and values point into these, whose heap blocks never move.
  std::vector<std::vector<char>> texts_;
  absl::flat_hash_map<std::string_view, std::string_view, Hash,
                      std::equal_to<std::string_view>>
      types_;
};

}  // namespace kevent::files

#endif  // SERVER_FILES_MIME_H_
