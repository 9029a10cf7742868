// SPDX-License-Identifier: Apache-2.0
#include "server/files/mime.h"

#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <utility>

#include "gtest/gtest.h"

namespace kevent::files {
namespace {

// Loads a table from a file with this text.
MimeTypes LoadText(const std::string& text, bool* loaded = nullptr) {
  std::string path = testing::TempDir() + "/mime_test.XXXXXX";
  close(mkstemp(path.data()));
  std::ofstream(path, std::ios::binary) << text;
  MimeTypes types = MimeTypes::Load(path, loaded);
  unlink(path.c_str());
  return types;
}

TEST(MimeTypesTest, BuiltInTableKnowsTheWeb) {
  const MimeTypes types;
  EXPECT_EQ(types.Lookup("index.html"), "text/html; charset=utf-8");
  EXPECT_EQ(types.Lookup("a/site.css"), "text/css; charset=utf-8");
  EXPECT_EQ(types.Lookup("app.mjs"), "text/javascript; charset=utf-8");
  EXPECT_EQ(types.Lookup("data.json"), "application/json");
  EXPECT_EQ(types.Lookup("logo.svg"), "image/svg+xml");
  EXPECT_EQ(types.Lookup("f.woff2"), "font/woff2");
  EXPECT_EQ(types.Lookup("m.wasm"), "application/wasm");
  EXPECT_GE(types.size(), 40u);
}

TEST(MimeTypesTest, TheLastExtensionDecidesInAnyCase) {
  const MimeTypes types;
  EXPECT_EQ(types.Lookup("PHOTO.JpG"), "image/jpeg");
  EXPECT_EQ(types.Lookup("site.css.gz"), "application/gzip");
  EXPECT_EQ(types.Lookup("v1.2/readme"), MimeTypes::kDefault);
  EXPECT_EQ(types.Lookup("dir.html/name"), MimeTypes::kDefault);
}

TEST(MimeTypesTest, NamesWithoutAKnownExtensionHaveTheDefault) {
  const MimeTypes types;
  for (const std::string& path :
       {std::string(), std::string("README"), std::string("a."),
        std::string("a.unknown"), std::string("/"), std::string("."),
        "x." + std::string(32, 'h'), "x." + std::string(33, 'h'),
        "x." + std::string(5000, 'h'), std::string("a.ht\0ml", 7)}) {
    EXPECT_EQ(types.Lookup(path), MimeTypes::kDefault) << path;
  }
}

TEST(MimeTypesTest, MissingFileLeavesTheBuiltInTable) {
  bool loaded = true;
  const MimeTypes types =
      MimeTypes::Load(testing::TempDir() + "/no such file", &loaded);
  EXPECT_FALSE(loaded);
  EXPECT_EQ(types.Lookup("a.html"), "text/html; charset=utf-8");
}

TEST(MimeTypesTest, FileOverridesTheBuiltInTable) {
  bool loaded = false;
  const MimeTypes types = LoadText(
      "# comment\n"
      "application/x-own\town OWN2  html # tail js\n"
      "text/x-many\r\n"
      "\r\n"
      "text/x-note note\r\n"
      "application/javascript es\n"
      "application/first twice\n"
      "application/second twice",
      &loaded);
  EXPECT_TRUE(loaded);
  EXPECT_EQ(types.Lookup("a.own"), "application/x-own");
  EXPECT_EQ(types.Lookup("a.own2"), "application/x-own");
  EXPECT_EQ(types.Lookup("a.html"), "application/x-own");
  EXPECT_EQ(types.Lookup("a.js"), "text/javascript; charset=utf-8");
  EXPECT_EQ(types.Lookup("a.note"), "text/x-note; charset=utf-8");
  EXPECT_EQ(types.Lookup("a.es"), "application/javascript; charset=utf-8");
  EXPECT_EQ(types.Lookup("a.twice"), "application/second");
  EXPECT_EQ(types.Lookup("a.png"), "image/png");
}

TEST(MimeTypesTest, LinesThatAreNoMediaTypeAreSkipped) {
  const MimeTypes types = LoadText(
      "html bad1\n/x bad2\ntext/ bad3\na/b/c bad4\n"
      "te\x01xt/x bad5\ntext/\"x\" bad6\n\xff/x bad7\n");
  for (const char* path :
       {"a.bad1", "a.bad2", "a.bad3", "a.bad4", "a.bad5", "a.bad6", "a.bad7"}) {
    EXPECT_EQ(types.Lookup(path), MimeTypes::kDefault) << path;
  }
}

TEST(MimeTypesTest, ViewsSurviveAMove) {
  MimeTypes first;
  const std::string_view html = first.Lookup("a.html");
  const MimeTypes second = std::move(first);
  EXPECT_EQ(html.data(), second.Lookup("b.html").data());
}

TEST(MimeTypesTest, SystemTable) {
  if (access(MimeTypes::kSystemFile, R_OK) != 0) GTEST_SKIP();
  bool loaded = false;
  const MimeTypes types = MimeTypes::Load(MimeTypes::kSystemFile, &loaded);
  EXPECT_TRUE(loaded);
  EXPECT_GT(types.size(), 500u);
  EXPECT_EQ(types.Lookup("a.html"), "text/html; charset=utf-8");
  EXPECT_EQ(types.Lookup("a.png"), "image/png");
}

}  // namespace
}  // namespace kevent::files
