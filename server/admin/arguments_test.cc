// SPDX-License-Identifier: Apache-2.0
#include "server/admin/arguments.h"

#include <google/protobuf/duration.pb.h>

#include <climits>
#include <cstring>
#include <string>

#include "gtest/gtest.h"
#include "server/net/address.h"

namespace kevent::admin {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

sockaddr_storage Peer(const std::string& text) {
  sockaddr_storage storage = {};
  auto address = net::Address::Parse(text);
  EXPECT_TRUE(address.ok()) << address.status();
  if (address.ok()) memcpy(&storage, address->data(), address->size());
  return storage;
}

bool Matches(const char* filter, const std::string& peer) {
  auto parsed = PeerFilter::Parse(filter);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() && parsed->Matches(Peer(peer));
}

TEST(ArgumentsTest, Durations) {
  google::protobuf::Duration d;
  d.set_seconds(1);
  d.set_nanos(5);
  EXPECT_EQ(ParseDuration(d, "x", 0, 10 * kSecond).value(), kSecond + 5);
  for (auto [seconds, nanos] : {std::pair<int64_t, int32_t>{-1, 0},
                                {0, -1},
                                {11, 0},
                                {10, 1},
                                {0, 1'000'000'000},
                                {INT64_MAX, INT32_MAX},
                                {INT64_MIN, INT32_MIN}}) {
    d.set_seconds(seconds);
    d.set_nanos(nanos);
    const absl::Status status = ParseDuration(d, "x", 0, 10 * kSecond).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), "x: not between 0 and 10 s");
  }
}

TEST(ArgumentsTest, PageSizes) {
  EXPECT_EQ(ParsePageSize(0).value(), 100u);
  EXPECT_EQ(ParsePageSize(1000).value(), 1000u);
  EXPECT_FALSE(ParsePageSize(1001).ok());
  EXPECT_FALSE(ParsePageSize(UINT32_MAX).ok());
}

TEST(ArgumentsTest, WorkerNumbers) {
  for (WorkerNumber id :
       {WorkerNumber{0, 0}, {7, 0x12ab}, {UINT32_MAX, UINT64_MAX}}) {
    EXPECT_EQ(ParseWorkerNumber(ToString(id)), id);
  }
  EXPECT_EQ(ToString({3, 255}), "3-ff");
  for (const char* text :
       {"", "-", "1", "1-", "-1", "1-g", "a-1", "1-1-1", "-1-1", "1- 1",
        "4294967296-1", "1-10000000000000000", "1--1"}) {
    EXPECT_FALSE(ParseWorkerNumber(text)) << text;
  }
}

TEST(ArgumentsTest, Paths) {
  const std::string odd("a b/%\xc3\xa4\0c", 9);
  EXPECT_EQ(EscapePath(odd), "/a%20b/%25%C3%A4%00c");
  EXPECT_EQ(UnescapePath(EscapePath(odd), "path").value(), odd);
  EXPECT_EQ(UnescapePath("/", "path").value(), "");
  EXPECT_EQ(UnescapePath("/%2f%2F", "path").value(), "//");
  for (const std::string& text :
       {std::string(), std::string("a"), std::string("/%"), std::string("/%2"),
        std::string("/%zz"), std::string("/%2g"),
        "/" + std::string(20'000, 'x')}) {
    EXPECT_EQ(UnescapePath(text, "path").status().code(),
              absl::StatusCode::kInvalidArgument)
        << text.substr(0, 10);
  }
}

TEST(ArgumentsTest, AsciiIsValidUtf8) {
  EXPECT_EQ(Ascii("a b\\\xff\n"), "a b\\x5C\\xFF\\x0A");
}

TEST(ArgumentsTest, Peers) {
  EXPECT_TRUE(Matches("", "127.0.0.1:80"));
  EXPECT_TRUE(Matches("", "unix:/x"));
  EXPECT_TRUE(Matches("unix", "unix:/x"));
  EXPECT_FALSE(Matches("unix", "127.0.0.1:80"));
  EXPECT_TRUE(Matches("192.0.2.7", "192.0.2.7:1"));
  EXPECT_FALSE(Matches("192.0.2.7", "192.0.2.8:1"));
  EXPECT_FALSE(Matches("192.0.2.7", "unix:/x"));
  EXPECT_TRUE(Matches("192.0.2.0/24", "192.0.2.255:1"));
  EXPECT_FALSE(Matches("192.0.2.0/24", "192.0.3.0:1"));
  EXPECT_TRUE(Matches("192.0.2.128/25", "192.0.2.200:1"));
  EXPECT_FALSE(Matches("192.0.2.128/25", "192.0.2.127:1"));
  EXPECT_TRUE(Matches("0.0.0.0/0", "8.8.8.8:1"));
  EXPECT_FALSE(Matches("0.0.0.0/0", "[2001:db8::1]:1"));
  EXPECT_TRUE(Matches("2001:db8::/33", "[2001:db8:7fff::1]:1"));
  EXPECT_FALSE(Matches("2001:db8::/33", "[2001:db8:8000::1]:1"));
  EXPECT_TRUE(Matches("192.0.2.7", "[::ffff:192.0.2.7]:1"));
}

TEST(ArgumentsTest, PeersThatAreNone) {
  for (const char* text : {"x", "1.2.3", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/-1",
                           "::1/129", "/24", "1.2.3.4/24x", "unix:"}) {
    EXPECT_EQ(PeerFilter::Parse(text).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
}

}  // namespace
}  // namespace kevent::admin
