// SPDX-License-Identifier: Apache-2.0
#include "server/http/parser.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace kevent::http {
namespace {

using internal::HasClass;
using internal::IsDigit;

// Each scanner names the class of characters it passes over and, for 16 bytes
// at once, a superset of the bytes outside that class.
struct TokenScanner {
  static constexpr uint8_t kClass = internal::kTokenBit;
#ifdef __SSE2__
  // Passes letters, digits and '-' only; the rarer tchars take the table.
  static __m128i Suspects(__m128i v) {
    const __m128i letter =
        _mm_sub_epi8(_mm_or_si128(v, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
    const __m128i digit = _mm_sub_epi8(v, _mm_set1_epi8('0'));
    const __m128i is_letter =
        _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter);
    const __m128i is_digit =
        _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit);
    const __m128i is_dash = _mm_cmpeq_epi8(v, _mm_set1_epi8('-'));
    const __m128i plain =
        _mm_or_si128(is_letter, _mm_or_si128(is_digit, is_dash));
    return _mm_cmpeq_epi8(plain, _mm_setzero_si128());
  }
#endif
};

struct TargetScanner {
  static constexpr uint8_t kClass = internal::kTargetBit;
#ifdef __SSE2__
  static __m128i Suspects(__m128i v) {
    // The signed comparison takes the bytes from 0x80 up as well.
    const __m128i low = _mm_cmplt_epi8(v, _mm_set1_epi8(0x21));
    const __m128i del = _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f));
    const __m128i hash = _mm_cmpeq_epi8(v, _mm_set1_epi8('#'));
    const __m128i question = _mm_cmpeq_epi8(v, _mm_set1_epi8('?'));
    return _mm_or_si128(_mm_or_si128(low, del), _mm_or_si128(hash, question));
  }
#endif
};

struct ValueScanner {
  static constexpr uint8_t kClass = internal::kFieldValueBit;
#ifdef __SSE2__
  static __m128i Suspects(__m128i v) {
    const __m128i control =
        _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
    const __m128i tab = _mm_cmpeq_epi8(v, _mm_set1_epi8('\t'));
    const __m128i del = _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f));
    return _mm_or_si128(_mm_andnot_si128(tab, control), del);
  }
#endif
};

// The first byte in [p, end) outside the scanner's class, or end. [begin, end)
// is readable and p lies in it.
template <typename Scanner>
inline const char* Skip([[maybe_unused]] const char* begin, const char* p,
                        const char* end) {
#ifdef __SSE2__
  if (end - begin >= 16) {
    while (p < end) {
      unsigned suspects;
      const ptrdiff_t left = end - p;
      if (left >= 16) {
        const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        suspects = _mm_movemask_epi8(Scanner::Suspects(v));
      } else {
        // The last 16 bytes, less those before p.
        const __m128i v =
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(end - 16));
        suspects =
            static_cast<unsigned>(_mm_movemask_epi8(Scanner::Suspects(v))) >>
            (16 - left);
      }
      if (suspects == 0) {
        p += std::min<ptrdiff_t>(left, 16);
        continue;
      }
      p += __builtin_ctz(suspects);
      if (!HasClass(*p, Scanner::kClass)) return p;
      ++p;
    }
    return p;
  }
#endif
  while (p < end && HasClass(*p, Scanner::kClass)) ++p;
  return p;
}

// Whether the token at `name` is `lower` in any case. `lower` is of small
// letters and '-', for which no tchar but the letter's other case has the same
// bits beside 0x20.
template <size_t N>
inline bool NameIs(const char* name, const char (&lower)[N]) {
  constexpr size_t kSize = N - 1;
  auto differs = [&]<typename Word>(size_t at, Word) {
    Word a, b;
    std::memcpy(&a, name + at, sizeof(Word));
    std::memcpy(&b, lower + at, sizeof(Word));
    return static_cast<Word>((a | static_cast<Word>(0x2020202020202020u)) ^ b);
  };
  static_assert(kSize >= 4);
  if constexpr (kSize < 8) {
    return (differs(0, uint32_t{}) | differs(kSize - 4, uint32_t{})) == 0;
  } else {
    uint64_t all = differs(0, uint64_t{}) | differs(kSize - 8, uint64_t{});
    if constexpr (kSize > 16) all |= differs(8, uint64_t{});
    return all == 0;
  }
}

// RFC 3986 section 3.2.2: IP-literal or reg-name (which IPv4address also is).
bool IsUriHost(std::string_view text) {
  if (!text.empty() && text.front() == '[') {
    if (text.size() < 4 || text.back() != ']') return false;
    text = text.substr(1, text.size() - 2);
    if (text.front() == 'v' || text.front() == 'V') {
      // "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )
      const size_t dot = text.find('.');
      if (dot == std::string_view::npos || dot < 2 || dot + 1 == text.size()) {
        return false;
      }
      for (char c : text.substr(1, dot - 1)) {
        if (!HasClass(c, internal::kHexBit)) return false;
      }
      for (char c : text.substr(dot + 1)) {
        if (c != ':' && !HasClass(c, internal::kRegNameBit)) return false;
      }
      return true;
    }
    char address[INET6_ADDRSTRLEN] = {};
    if (text.size() >= sizeof(address)) return false;
    text.copy(address, text.size());
    in6_addr ignored;
    return inet_pton(AF_INET6, address, &ignored) == 1;
  }
  for (size_t i = 0; i < text.size(); ++i) {
    if (HasClass(text[i], internal::kRegNameBit)) continue;
    if (text[i] != '%' || text.size() - i < 3 ||
        !HasClass(text[i + 1], internal::kHexBit) ||
        !HasClass(text[i + 2], internal::kHexBit)) {
      return false;
    }
    i += 2;
  }
  return true;
}

// The size of the host in host[:port].
size_t HostSize(std::string_view authority) {
  if (!authority.empty() && authority.front() == '[') {
    const size_t bracket = authority.find(']');
    return bracket == std::string_view::npos ? authority.size() : bracket + 1;
  }
  return std::min(authority.find(':'), authority.size());
}

// uri-host [ ":" port ], RFC 9110 section 7.2; port is *DIGIT, at most 65535.
bool IsAuthority(std::string_view text, bool with_port) {
  // Nearly always up to the port, or the end.
  size_t host_size = 0;
  while (host_size < text.size() &&
         HasClass(text[host_size], internal::kRegNameBit)) {
    ++host_size;
  }
  if (host_size < text.size() && text[host_size] != ':') {
    host_size = HostSize(text);
    if (!IsUriHost(text.substr(0, host_size))) return false;
  }
  std::string_view port = text.substr(host_size);
  if (port.empty()) return !with_port;
  if (port.front() != ':') return false;
  port.remove_prefix(1);
  if (port.empty()) return !with_port;
  uint64_t number;
  return ParseDecimal(port, &number) && number <= 65535;
}

}  // namespace

// One parse of one head. Each step returns 0, kShort when the bytes end before
// it can tell, or the status of the first error. The steps look at the bytes
// strictly in their order and stop where the bytes end: that is what makes the
// result independent of how the head arrives.
class HeadParser {
 public:
  HeadParser(std::string_view buffer, const Limits& limits, Request* request)
      : r_(*request),
        begin_(buffer.data()),
        p_(buffer.data()),
        end_(buffer.data() + buffer.size()),
        limits_(limits) {}

  ParseResult Run() {
    Reset();
    int status = EmptyLine();
    if (status != 0) return Stop(status);

    const size_t limit =
        std::min(limits_.header_bytes, Limits::kMaxHeaderBytes);
    const size_t available = static_cast<size_t>(end_ - p_);
    const bool cut = available >= limit;
    if (cut) end_ = p_ + limit;
    r_.base_ = p_;

    // Bytes that a limit excludes are never looked at: running out of bytes
    // inside of it is exceeding it.
    const char* line_end = end_;
    bool line_cut = cut;
    if (static_cast<size_t>(end_ - p_) >= 2 &&
        static_cast<size_t>(end_ - p_) - 2 >= limits_.request_line) {
      line_end = p_ + limits_.request_line + 2;
      line_cut = true;
    }
    status = RequestLine(line_end);
    if (status != 0) return Stop(status == kShort && line_cut ? 414 : status);
    status = Fields();
    if (status == 0) status = Conclude();
    if (status != 0) return Stop(status == kShort && cut ? 431 : status);
    return {ParseResult::Kind::kDone, 0, static_cast<uint32_t>(p_ - begin_)};
  }

 private:
  static constexpr int kShort = -1;

  static ParseResult Stop(int status) {
    if (status == kShort) return {ParseResult::Kind::kNeedMore, 0, 0};
    return {ParseResult::Kind::kError, static_cast<uint16_t>(status), 0};
  }

  void Reset() {
    r_.method = Method::kOther;
    r_.version_minor = 1;
    r_.keep_alive = r_.chunked = r_.expect_continue = false;
    r_.content_length.reset();
    r_.raw_method = r_.target = r_.path = r_.query = r_.host = {};
    r_.accept_encoding = r_.if_match = r_.if_none_match = {};
    r_.if_modified_since = r_.if_unmodified_since = {};
    r_.if_range = r_.range = {};
    r_.base_ = begin_;
    r_.field_count_ = 0;
  }

  // RFC 9112 section 2.2: one empty line before the request line is forgiven
  // (old clients send it after a body). More would be a way to idle.
  int EmptyLine() {
    if (p_ == end_) return kShort;
    if (*p_ != '\r') return 0;
    if (end_ - p_ < 2) return kShort;
    if (p_[1] != '\n') return 400;
    p_ += 2;
    return p_ == end_ ? kShort : 0;
  }

  // RFC 9112 section 3.
  int RequestLine(const char* end) {
    const char* p = p_;
    if (end - p >= 4 && std::memcmp(p, "GET ", 4) == 0) {
      r_.method = Method::kGet;
      r_.raw_method = {p, 3};
      p += 4;
    } else {
      p = Skip<TokenScanner>(begin_, p, end);
      if (p == end) return kShort;
      if (*p != ' ' || p == p_) return 400;
      r_.raw_method = {p_, static_cast<size_t>(p - p_)};
      r_.method = ParseMethod(r_.raw_method);
      ++p;
    }

    const char* const target = p;
    const char* question = nullptr;
    for (;;) {
      p = Skip<TargetScanner>(begin_, p, end);
      if (p == end) return kShort;
      if (*p != '?') break;
      if (question == nullptr) question = p;
      ++p;
    }
    if (*p != ' ' || p == target) return 400;
    r_.target = {target, static_cast<size_t>(p - target)};
    ++p;

    // RFC 9112 section 2.3.
    constexpr std::string_view kUsual = "HTTP/1.1\r\n";
    if (static_cast<size_t>(end - p) < kUsual.size() ||
        std::memcmp(p, kUsual.data(), kUsual.size()) != 0) {
      for (size_t i = 0; i < kUsual.size(); ++i) {
        if (p + i == end) return kShort;
        const bool fits = i == 5 || i == 7 ? IsDigit(p[i]) : p[i] == kUsual[i];
        if (!fits) return 400;
      }
      if (p[5] != '1') return 505;
      if (p[7] == '0') r_.version_minor = 0;
    }
    p_ = p + kUsual.size();
    return Target(question);
  }

  // RFC 9112 section 3.2. `question` is the first '?' or null.
  int Target(const char* question) {
    std::string_view target = r_.target;
    const char* const end = target.data() + target.size();
    if (r_.method == Method::kConnect) {
      // RFC 9110 section 9.3.6: an empty port is invalid.
      if (HostSize(target) == 0 || !IsAuthority(target, /*with_port=*/true)) {
        return 400;
      }
      r_.host = target;
      r_.path = {end, 0};
      return 0;
    }
    const char* path = target.data();
    if (target.front() != '/') {
      if (target == "*") {
        if (r_.method != Method::kOptions) return 400;
        r_.path = target;
        return 0;
      }
      const size_t scheme = target.find("://");
      if (scheme == std::string_view::npos) return 400;
      const std::string_view name = target.substr(0, scheme);
      if (!EqualsIgnoreCase(name, "http") && !EqualsIgnoreCase(name, "https")) {
        return 400;
      }
      const std::string_view rest = target.substr(scheme + 3);
      const size_t size = std::min(rest.find_first_of("/?"), rest.size());
      const std::string_view authority = rest.substr(0, size);
      if (HostSize(authority) == 0 ||
          !IsAuthority(authority, /*with_port=*/false)) {
        return 400;
      }
      r_.host = authority;
      path = authority.data() + size;
      if (path == end || *path != '/') {
        // An empty path means "/" (RFC 9110 section 4.2.3): the last one of
        // "://" serves for it.
        r_.path = {authority.data() - 1, 1};
        if (question != nullptr) SetQuery(question, end);
        return 0;
      }
    }
    if (question != nullptr) {
      SetQuery(question, end);
    } else {
      question = end;
    }
    r_.path = {path, static_cast<size_t>(question - path)};
    return 0;
  }

  void SetQuery(const char* question, const char* end) {
    r_.query = {question + 1, static_cast<size_t>(end - question - 1)};
  }

  // RFC 9112 section 5.
  int Fields() {
    const char* const end = end_;
    const size_t max = std::min(limits_.header_count, Limits::kMaxHeaderCount);
    size_t count = 0;
    const char* p = p_;
    for (;;) {
      if (p == end) return kShort;
      if (*p == '\r') {
        if (end - p < 2) return kShort;
        if (p[1] != '\n') return 400;
        p_ = p + 2;
        r_.field_count_ = count;
        return 0;
      }
      const char* const name = p;
      p = Skip<TokenScanner>(begin_, p, end);
      if (p == end) return kShort;
      if (*p != ':' || p == name) return 400;
      const size_t name_size = static_cast<size_t>(p - name);
      ++p;
      while (p < end && (*p == ' ' || *p == '\t')) ++p;
      const char* const value = p;
      p = Skip<ValueScanner>(begin_, p, end);
      if (p == end) return kShort;
      if (*p != '\r') return 400;
      if (end - p < 2) return kShort;
      if (p[1] != '\n') return 400;
      const char* value_end = p;
      while (value_end > value &&
             (value_end[-1] == ' ' || value_end[-1] == '\t')) {
        --value_end;
      }
      p += 2;
      if (count == max) return 431;
      const size_t value_size = static_cast<size_t>(value_end - value);
      Request::FieldSpan& span = r_.fields_[count++];
      span.name = static_cast<uint16_t>(name - r_.base_);
      span.name_size = static_cast<uint16_t>(name_size);
      span.value = static_cast<uint16_t>(value - r_.base_);
      span.value_size = static_cast<uint16_t>(value_size);
      const int status = Interpret(name, name_size, {value, value_size});
      if (status != 0) return status;
    }
  }

  int Interpret(const char* name, size_t name_size, std::string_view value) {
    switch (name_size) {
      case 4:
        if (NameIs(name, "host")) return Host(value);
        break;
      case 5:
        if (NameIs(name, "range")) SetSingle(&r_.range, value);
        break;
      case 6:
        if (NameIs(name, "expect")) Expect(value);
        break;
      case 8:
        if (NameIs(name, "if-match")) {
          SetList(&r_.if_match, value);
        } else if (NameIs(name, "if-range")) {
          SetSingle(&r_.if_range, value);
        }
        break;
      case 10:
        if (NameIs(name, "connection")) Connection(value);
        break;
      case 13:
        if (NameIs(name, "if-none-match")) SetList(&r_.if_none_match, value);
        break;
      case 14:
        if (NameIs(name, "content-length")) return ContentLength(value);
        break;
      case 15:
        if (NameIs(name, "accept-encoding")) {
          SetList(&r_.accept_encoding, value);
        }
        break;
      case 17:
        if (NameIs(name, "if-modified-since")) {
          SetSingle(&r_.if_modified_since, value);
        } else if (NameIs(name, "transfer-encoding")) {
          return TransferEncoding(value);
        }
        break;
      case 19:
        if (NameIs(name, "if-unmodified-since")) {
          SetSingle(&r_.if_unmodified_since, value);
        }
        break;
      default:
        break;
    }
    return 0;
  }

  static void SetList(std::string_view* view, std::string_view value) {
    if (view->data() == nullptr) *view = value;
  }

  static void SetSingle(std::string_view* view, std::string_view value) {
    *view = view->data() == nullptr ? value : value.substr(0, 0);
  }

  // RFC 9112 section 3.2: a second Host is an error in any version.
  int Host(std::string_view value) {
    if (has_host_) return 400;
    has_host_ = true;
    if (!IsAuthority(value, /*with_port=*/false)) return 400;
    if (r_.host.data() == nullptr) r_.host = value;
    return 0;
  }

  // RFC 9110 section 8.6; RFC 9112 section 6.3 lets a recipient refuse the
  // lists and repetitions that it may also accept.
  int ContentLength(std::string_view value) {
    uint64_t length;
    if (r_.content_length.has_value() || !ParseDecimal(value, &length)) {
      return 400;
    }
    r_.content_length = length;
    return 0;
  }

  // RFC 9112 section 6.1. Here only what cannot be a list of codings with
  // chunked at most once and last; Conclude judges the whole.
  int TransferEncoding(std::string_view value) {
    has_transfer_encoding_ = true;
    std::string_view coding;
    while (NextListElement(&value, &coding)) {
      if (r_.chunked) return 400;
      const size_t semicolon = coding.find(';');
      const std::string_view name = TrimOws(coding.substr(0, semicolon));
      if (!IsToken(name)) return 400;
      if (!EqualsIgnoreCase(name, "chunked")) {
        has_other_coding_ = true;
      } else if (semicolon == std::string_view::npos) {
        r_.chunked = true;
      } else {
        return 400;
      }
    }
    return 0;
  }

  // RFC 9110 section 7.6.1.
  void Connection(std::string_view value) {
    std::string_view option;
    while (NextListElement(&value, &option)) {
      if (EqualsIgnoreCase(option, "close")) {
        has_close_ = true;
      } else if (EqualsIgnoreCase(option, "keep-alive")) {
        has_keep_alive_ = true;
      }
    }
  }

  void Expect(std::string_view value) {
    std::string_view expectation;
    while (NextListElement(&value, &expectation)) {
      if (EqualsIgnoreCase(expectation, "100-continue")) {
        r_.expect_continue = r_.version_minor != 0;
      }
    }
  }

  // What only the whole head can tell.
  int Conclude() {
    const bool old = r_.version_minor == 0;
    if (!old && !has_host_) return 400;
    if (has_transfer_encoding_) {
      // RFC 9112 section 6.1: in HTTP/1.0 the framing must be taken as faulty,
      // and beside Content-Length it ought to be an error.
      if (old || r_.content_length.has_value()) return 400;
      if (!r_.chunked) return 400;
      if (has_other_coding_) return 501;
    }
    r_.keep_alive = !has_close_ && (!old || has_keep_alive_);
    return 0;
  }

  Request& r_;
  const char* const begin_;
  const char* p_;
  const char* end_;
  const Limits& limits_;
  bool has_host_ = false;
  bool has_transfer_encoding_ = false;
  bool has_other_coding_ = false;
  bool has_close_ = false;
  bool has_keep_alive_ = false;
};

namespace {

// Whether a head that was incomplete at state.parsed bytes is worth another
// parse: an empty line has come, or so much that an error is due to be seen.
bool WorthParsing(std::string_view buffer, size_t head_limit,
                  ParserState* state) {
  if (buffer.size() >= head_limit) return true;
  if (buffer.size() / 2 >= state->parsed) return true;
  size_t from = state->searched;
  for (;;) {
    const size_t lf = buffer.find('\n', from);
    if (lf == std::string_view::npos) break;
    from = lf + 1;
    // Bare LFs count: the parse is to find the fault now, not at a timeout.
    if (lf >= 1 && buffer[lf - 1] == '\n') return true;
    if (lf >= 2 && buffer[lf - 1] == '\r' && buffer[lf - 2] == '\n') {
      return true;
    }
  }
  state->searched = static_cast<uint32_t>(buffer.size());
  return false;
}

}  // namespace

ParseResult Parse(std::string_view buffer, const Limits& limits,
                  Request* request, ParserState* state) {
  const size_t head_limit =
      std::min(limits.header_bytes, Limits::kMaxHeaderBytes);
  buffer = buffer.substr(0, head_limit + 2);
  if (state != nullptr && state->parsed != 0 &&
      !WorthParsing(buffer, head_limit, state)) {
    return {ParseResult::Kind::kNeedMore, 0, 0};
  }
  const ParseResult result = HeadParser(buffer, limits, request).Run();
  if (state != nullptr && result.kind == ParseResult::Kind::kNeedMore) {
    state->parsed = state->searched = static_cast<uint32_t>(buffer.size());
  }
  return result;
}

std::string_view Request::HostName() const {
  return host.substr(0, HostSize(host));
}

std::string_view Request::Find(std::string_view name) const {
  std::string_view found;
  ForEachNamed(name, [&found](std::string_view value) {
    found = value;
    return false;
  });
  return found;
}

}  // namespace kevent::http
