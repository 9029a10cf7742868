// SPDX-License-Identifier: Apache-2.0
#include "server/net/address.h"

#include <netinet/in.h>
#include <sys/un.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kevent::net {
namespace {

using ::testing::HasSubstr;

TEST(AddressTest, WhatItPrintsIsWhatItParses) {
  for (const char* text :
       {"127.0.0.1:8080", "0.0.0.0:0", "255.255.255.255:65535", "[::1]:80",
        "[::]:0", "[2001:db8::7]:443", "[::1%lo]:80", "unix:/run/x.sock",
        "unix:relative", "unix:@abstract name"}) {
    absl::StatusOr<Address> address = Address::Parse(text);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(address->ToString(), text);
  }
}

TEST(AddressTest, TheKernelsFormIsRight) {
  Address v4 = *Address::Parse("1.2.3.4:258");
  EXPECT_EQ(v4.family(), AF_INET);
  ASSERT_EQ(v4.size(), sizeof(sockaddr_in));
  auto* sin = reinterpret_cast<const sockaddr_in*>(v4.data());
  EXPECT_EQ(sin->sin_port, htons(258));
  EXPECT_EQ(sin->sin_addr.s_addr, htonl(0x01020304));
  EXPECT_EQ(v4.port(), 258);
  EXPECT_EQ(v4.path(), "");

  Address any = *Address::Parse(":80");
  EXPECT_EQ(any.ToString(), "0.0.0.0:80");

  Address v6 = *Address::Parse("[::1]:80");
  EXPECT_EQ(v6.family(), AF_INET6);
  EXPECT_EQ(v6.size(), sizeof(sockaddr_in6));
  EXPECT_EQ(v6.port(), 80);

  Address path = *Address::Parse("unix:/a/b");
  EXPECT_TRUE(path.is_unix());
  EXPECT_EQ(path.path(), "/a/b");
  EXPECT_EQ(path.size(), offsetof(sockaddr_un, sun_path) + 5);
  EXPECT_EQ(path.port(), 0);

  Address abstract = *Address::Parse("unix:@ab");
  EXPECT_EQ(abstract.path(), "");
  EXPECT_EQ(abstract.size(), offsetof(sockaddr_un, sun_path) + 3);
  EXPECT_EQ(abstract.data()->sa_data[0], '\0');
}

struct Bad {
  std::string text;
  const char* why;
};

TEST(AddressTest, ErrorsNameTheTextAndTheFault) {
  for (const Bad& bad : {
           Bad{"", "no port"},
           Bad{"127.0.0.1", "no port"},
           Bad{"[::1]", "no port"},
           Bad{"8080", "no port"},
           Bad{"127.0.0.1:", "port is not a number"},
           Bad{"127.0.0.1:http", "port is not a number"},
           Bad{"127.0.0.1:-1", "port is not a number"},
           Bad{"127.0.0.1:+1", "port is not a number"},
           Bad{"127.0.0.1: 80", "port is not a number"},
           Bad{"127.0.0.1:65536", "port is not a number from 0 to 65535"},
           Bad{"127.0.0.1:099999", "port is not a number"},
           Bad{"localhost:80", "names are not resolved"},
           Bad{"1.2.3:80", "not a numeric IPv4 address"},
           Bad{"1.2.3.4.5:80", "not a numeric IPv4 address"},
           Bad{"1.2.3.256:80", "not a numeric IPv4 address"},
           Bad{"::1:80", "in brackets"},
           Bad{"[::1:80", "no ']'"},
           Bad{"[]:80", "not an IPv6 address"},
           Bad{"[127.0.0.1]:80", "not an IPv6 address"},
           Bad{"[::1%nosuchif]:80", "no network interface 'nosuchif'"},
           Bad{"unix:", "path is missing"},
           Bad{"unix:@", "path is missing"},
           Bad{"unix:/" + std::string(107, 'x'), "longer than 107 bytes"},
           Bad{std::string("unix:/a\0b", 9), "zero byte"},
       }) {
    absl::Status status = Address::Parse(bad.text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.text;
    std::string message(status.message());
    EXPECT_THAT(message, HasSubstr(bad.why)) << bad.text;
    EXPECT_THAT(message, HasSubstr("bad address '" +
                                   std::string(bad.text.c_str()) + "'"));
  }
  EXPECT_TRUE(Address::Parse("unix:/" + std::string(106, 'x')).ok());
}

TEST(AddressTest, TruncatedOnesFromTheKernelAreEmpty) {
  Address v4 = *Address::Parse("1.2.3.4:5");
  EXPECT_EQ(Address::From(v4.data(), v4.size()), v4);
  EXPECT_EQ(Address::From(v4.data(), v4.size() - 1).size(), 0u);
  EXPECT_EQ(Address::From(v4.data(), 0).size(), 0u);
  EXPECT_EQ(Address::From(v4.data(), 4096).size(), 0u);
  EXPECT_EQ(Address().ToString(), "");
  EXPECT_EQ(Address().family(), AF_UNSPEC);
  sockaddr_un unnamed = {};
  unnamed.sun_family = AF_UNIX;
  EXPECT_EQ(
      Address::From(reinterpret_cast<sockaddr*>(&unnamed), sizeof(sa_family_t))
          .ToString(),
      "unix:");
  EXPECT_EQ(Address::PeerOf(-1).size(), 0u);
}

TEST(AddressTest, Comparison) {
  EXPECT_EQ(*Address::Parse("[::1]:80"), *Address::Parse("[0:0::1]:80"));
  EXPECT_FALSE(*Address::Parse(":80") == *Address::Parse(":81"));
}

}  // namespace
}  // namespace kevent::net
