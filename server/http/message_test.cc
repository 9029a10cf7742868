// SPDX-License-Identifier: Apache-2.0
#include "server/http/message.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kevent::http {
namespace {

TEST(MethodTest, NamesAndMethodsMapToEachOther) {
  for (Method method : {Method::kGet, Method::kHead, Method::kPost,
                        Method::kPut, Method::kDelete, Method::kConnect,
                        Method::kOptions, Method::kTrace, Method::kPatch}) {
    EXPECT_FALSE(MethodName(method).empty());
    EXPECT_EQ(ParseMethod(MethodName(method)), method) << MethodName(method);
  }
  EXPECT_EQ(MethodName(Method::kOther), "");
}

TEST(MethodTest, AnyOtherSpellingIsOther) {
  for (const char* name :
       {"", "get", "Get", "GETS", "PROPFIND", "OPTION", "G", "POSTS"}) {
    EXPECT_EQ(ParseMethod(name), Method::kOther) << name;
  }
}

TEST(ReasonPhraseTest, KnowsRegisteredCodesOnly) {
  EXPECT_EQ(ReasonPhrase(200), "OK");
  EXPECT_EQ(ReasonPhrase(206), "Partial Content");
  EXPECT_EQ(ReasonPhrase(404), "Not Found");
  EXPECT_EQ(ReasonPhrase(431), "Request Header Fields Too Large");
  EXPECT_EQ(ReasonPhrase(505), "HTTP Version Not Supported");
  for (int status : {-1, 0, 99, 104, 299, 418, 599, 600, 1000}) {
    EXPECT_EQ(ReasonPhrase(status), "") << status;
  }
}

TEST(TextTest, EqualsIgnoreCaseFoldsLettersOnly) {
  EXPECT_TRUE(EqualsIgnoreCase("", ""));
  EXPECT_TRUE(EqualsIgnoreCase("Content-Length", "cONTENT-lENGTH"));
  EXPECT_FALSE(EqualsIgnoreCase("a", "ab"));
  EXPECT_FALSE(EqualsIgnoreCase("a", "b"));
  // Pairs that differ in the bit that tells the cases of a letter apart.
  EXPECT_FALSE(EqualsIgnoreCase("@", "`"));
  EXPECT_FALSE(EqualsIgnoreCase("[", "{"));
  EXPECT_FALSE(EqualsIgnoreCase("-", "\r"));
  EXPECT_FALSE(EqualsIgnoreCase("\xc4", "\xe4"));
}

TEST(TextTest, TokenIsExactlyTheCharactersOfTheGrammar) {
  const std::string_view specials = "!#$%&'*+-.^_`|~";
  for (int c = 0; c < 256; ++c) {
    const char text = static_cast<char>(c);
    const bool expected = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                          (c >= 'A' && c <= 'Z') ||
                          specials.find(text) != std::string_view::npos;
    EXPECT_EQ(IsToken({&text, 1}), expected && c != 0) << c;
    EXPECT_EQ(IsToken(std::string("ab") + text + "cd"), expected && c != 0);
  }
  EXPECT_FALSE(IsToken(""));
}

TEST(TextTest, FieldValueHasNoControlsButTab) {
  for (int c = 0; c < 256; ++c) {
    const char text = static_cast<char>(c);
    const bool expected = c == '\t' || (c >= 0x20 && c != 0x7f);
    EXPECT_EQ(IsFieldValue({&text, 1}), expected) << c;
  }
  EXPECT_TRUE(IsFieldValue(""));
  EXPECT_FALSE(IsFieldValue("a\r\nSet-Cookie: x"));
}

TEST(TextTest, TrimOwsTakesSpacesAndTabsOnly) {
  EXPECT_EQ(TrimOws(" \t a b\t "), "a b");
  EXPECT_EQ(TrimOws(" \t "), "");
  EXPECT_EQ(TrimOws("\va\f"), "\va\f");
}

std::vector<std::string> Elements(std::string_view list) {
  std::vector<std::string> elements;
  std::string_view element;
  while (NextListElement(&list, &element)) elements.emplace_back(element);
  return elements;
}

TEST(TextTest, NextListElementGivesEveryElementEmptyOnesToo) {
  using Strings = std::vector<std::string>;
  EXPECT_EQ(Elements("a"), Strings({"a"}));
  EXPECT_EQ(Elements(" a ,\tb,c "), Strings({"a", "b", "c"}));
  EXPECT_EQ(Elements(""), Strings({""}));
  EXPECT_EQ(Elements("a,"), Strings({"a", ""}));
  EXPECT_EQ(Elements(",,"), Strings({"", "", ""}));
  EXPECT_EQ(Elements(std::string_view()), Strings());
}

TEST(TextTest, ParseDecimalTakesDigitsUpToTheGreatestOffset) {
  uint64_t value = 7;
  EXPECT_TRUE(ParseDecimal("0", &value));
  EXPECT_EQ(value, 0u);
  EXPECT_TRUE(ParseDecimal("00000000000000000000000000012", &value));
  EXPECT_EQ(value, 12u);
  EXPECT_TRUE(ParseDecimal("9223372036854775807", &value));
  EXPECT_EQ(value, static_cast<uint64_t>(INT64_MAX));
  for (const char* bad :
       {"", " ", "+1", "-1", "1 ", " 1", "0x1", "1,1", "1.0", "1e3", "\xb2",
        "9223372036854775808", "18446744073709551616",
        "99999999999999999999999999"}) {
    EXPECT_FALSE(ParseDecimal(bad, &value)) << bad;
  }
}

}  // namespace
}  // namespace kevent::http
