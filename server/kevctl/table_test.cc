// SPDX-License-Identifier: Apache-2.0
#include "server/kevctl/table.h"

#include <string>

#include "gtest/gtest.h"

namespace kevent::kevctl {
namespace {

TEST(TableTest, AlignsColumns) {
  Table table({"name", "count", "note"});
  table.Add({"a", "1", "x"});
  table.Add({"longer", "12345", ""});
  EXPECT_EQ(table.ToString(),
            "name    count  note\n"
            "a           1  x\n"
            "longer  12345\n");
}

TEST(TableTest, PrintableCannotSteerATerminal) {
  EXPECT_EQ(Printable("plain text"), "plain text");
  EXPECT_EQ(Printable(std::string("\x1b[2J\n\\\xff\0", 8)),
            "\\x1B[2J\\x0A\\\\\\xFF\\x00");
}

TEST(TableTest, Counts) {
  EXPECT_EQ(Count(0), "0");
  EXPECT_EQ(Count(99'999), "99999");
  EXPECT_EQ(Count(100'000), "100k");
  EXPECT_EQ(Count(12'345'678), "12.3M");
  EXPECT_EQ(Count(UINT64_MAX), "18447P");
}

TEST(TableTest, BytesAndTimes) {
  EXPECT_EQ(Bytes(0), "0 B");
  EXPECT_EQ(Bytes(1023), "1023 B");
  EXPECT_EQ(Bytes(1536), "1.50 KiB");
  EXPECT_EQ(Bytes(uint64_t{5} << 30), "5.00 GiB");
  EXPECT_EQ(Time(0), "-");
  EXPECT_EQ(Time(12'345), "12.3 us");
  EXPECT_EQ(Time(999'600), "1.00 ms");
  EXPECT_EQ(Time(3'400'000'000), "3.40 s");
  EXPECT_EQ(Time(uint64_t{300} * 1'000'000'000), "5 min");
  EXPECT_EQ(Time(uint64_t{3720} * 1'000'000'000), "1 h 2 min");
  EXPECT_EQ(Time(uint64_t{49} * 3600 * 1'000'000'000), "2 d 1 h");
}

}  // namespace
}  // namespace kevent::kevctl
