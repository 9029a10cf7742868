// SPDX-License-Identifier: Apache-2.0
#include "server/http/body.h"

#include <algorithm>

namespace kevent::http {
namespace {

using internal::HasClass;

// Enough for any 64-bit size; without a bound, leading zeros have no end.
constexpr int kMaxDigits = 16;

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = static_cast<char>(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool IsOws(char c) { return c == ' ' || c == '\t'; }

}  // namespace

BodyDecoder::BodyDecoder(const Request& request, const BodyLimits& limits) {
  if (request.chunked) {
    *this = Chunked(limits);
  } else if (request.content_length.has_value()) {
    *this = WithLength(*request.content_length, limits);
  }
}

BodyDecoder BodyDecoder::WithLength(uint64_t length, const BodyLimits& limits) {
  BodyDecoder decoder;
  decoder.left_ = length;
  if (length > limits.body_bytes) {
    decoder.state_ = decoder.Fail(413);
  } else {
    decoder.state_ = length == 0 ? State::kDone : State::kLength;
  }
  return decoder;
}

BodyDecoder BodyDecoder::Chunked(const BodyLimits& limits) {
  BodyDecoder decoder;
  decoder.state_ = State::kSizeStart;
  decoder.body_left_ = limits.body_bytes;
  decoder.extension_left_ = limits.extension_bytes;
  decoder.trailer_left_ = limits.trailer_bytes;
  return decoder;
}

BodyDecoder::Result BodyDecoder::Decode(std::string_view in) {
  Result result;
  while (result.consumed < in.size()) {
    if (state_ == State::kData || state_ == State::kLength) {
      const size_t size = static_cast<size_t>(
          std::min<uint64_t>(left_, in.size() - result.consumed));
      result.data = in.substr(result.consumed, size);
      result.consumed += size;
      left_ -= size;
      if (left_ == 0) {
        state_ = state_ == State::kData ? State::kDataCr : State::kDone;
      }
      break;
    }
    if (state_ == State::kDone || state_ == State::kFailed) break;
    state_ = Step(in[result.consumed]);
    if (state_ == State::kFailed) break;
    ++result.consumed;
  }
  result.done = state_ == State::kDone;
  result.status = status_;
  if (state_ == State::kFailed) result.consumed = 0;
  return result;
}

BodyDecoder::State BodyDecoder::Fail(uint16_t status) {
  status_ = status;
  return State::kFailed;
}

BodyDecoder::State BodyDecoder::AddDigit(char c) {
  const int value = HexValue(c);
  if (value < 0 || digits_ == kMaxDigits) return Fail(400);
  ++digits_;
  if (left_ > (INT64_MAX >> 4)) return Fail(400);
  left_ = left_ << 4 | static_cast<uint64_t>(value);
  return State::kSize;
}

BodyDecoder::State BodyDecoder::EndOfSize() {
  digits_ = 0;
  if (left_ == 0) return State::kTrailerStart;
  if (left_ > body_left_) return Fail(413);
  body_left_ -= left_;
  return State::kData;
}

BodyDecoder::State BodyDecoder::Step(char c) {
  // chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )
  if (state_ >= State::kSize && state_ <= State::kAfterExtValue && c != '\r' &&
      !(state_ == State::kSize && HexValue(c) >= 0)) {
    if (extension_left_ == 0) return Fail(400);
    --extension_left_;
  }
  if (state_ >= State::kTrailerStart) {
    if (trailer_left_ == 0) return Fail(431);
    --trailer_left_;
  }
  switch (state_) {
    case State::kSizeStart:
      left_ = 0;
      return AddDigit(c);
    case State::kSize:
      if (c == '\r') return State::kSizeLf;
      if (c == ';') return State::kExtNameStart;
      if (IsOws(c)) return State::kBeforeExtension;
      return AddDigit(c);
    case State::kBeforeExtension:
      if (IsOws(c)) return state_;
      return c == ';' ? State::kExtNameStart : Fail(400);
    case State::kExtNameStart:
      if (IsOws(c)) return state_;
      return HasClass(c, internal::kTokenBit) ? State::kExtName : Fail(400);
    case State::kExtName:
      if (HasClass(c, internal::kTokenBit)) return state_;
      if (c == '=') return State::kExtValueStart;
      if (c == ';') return State::kExtNameStart;
      if (c == '\r') return State::kSizeLf;
      return IsOws(c) ? State::kAfterExtName : Fail(400);
    case State::kAfterExtName:
      if (IsOws(c)) return state_;
      if (c == '=') return State::kExtValueStart;
      return c == ';' ? State::kExtNameStart : Fail(400);
    case State::kExtValueStart:
      if (IsOws(c)) return state_;
      if (c == '"') return State::kExtQuoted;
      return HasClass(c, internal::kTokenBit) ? State::kExtToken : Fail(400);
    case State::kExtToken:
      if (HasClass(c, internal::kTokenBit)) return state_;
      [[fallthrough]];
    case State::kAfterExtValue:
      if (c == ';') return State::kExtNameStart;
      if (c == '\r') return State::kSizeLf;
      return IsOws(c) ? State::kBeforeExtension : Fail(400);
    case State::kExtQuoted:
      if (c == '"') return State::kAfterExtValue;
      if (c == '\\') return State::kExtQuotedPair;
      return HasClass(c, internal::kFieldValueBit) ? state_ : Fail(400);
    case State::kExtQuotedPair:
      return HasClass(c, internal::kFieldValueBit) ? State::kExtQuoted
                                                   : Fail(400);
    case State::kSizeLf:
      return c == '\n' ? EndOfSize() : Fail(400);
    case State::kDataCr:
      return c == '\r' ? State::kDataLf : Fail(400);
    case State::kDataLf:
      return c == '\n' ? State::kSizeStart : Fail(400);
    case State::kTrailerStart:
      if (c == '\r') return State::kEndLf;
      return HasClass(c, internal::kTokenBit) ? State::kTrailerName : Fail(400);
    case State::kTrailerName:
      if (HasClass(c, internal::kTokenBit)) return state_;
      return c == ':' ? State::kTrailerValue : Fail(400);
    case State::kTrailerValue:
      if (HasClass(c, internal::kFieldValueBit)) return state_;
      return c == '\r' ? State::kTrailerLf : Fail(400);
    case State::kTrailerLf:
      return c == '\n' ? State::kTrailerStart : Fail(400);
    case State::kEndLf:
      return c == '\n' ? State::kDone : Fail(400);
    case State::kDone:
    case State::kFailed:
    case State::kLength:
    case State::kData:
      break;
  }
  return state_;
}

}  // namespace kevent::http
