// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_ADMIN_TEST_CERTIFICATES_H_
#define SERVER_ADMIN_TEST_CERTIFICATES_H_

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <string>

namespace kevent::admin {

struct PemPair {
  std::string certificate;
  std::string key;
};

class TestAuthority {
 public:
  TestAuthority();
  ~TestAuthority();
  TestAuthority(const TestAuthority&) = delete;
  TestAuthority& operator=(const TestAuthority&) = delete;

  const std::string& certificate() const { return certificate_; }  // PEM
  PemPair Issue(const std::string& common_name);
  // For 127.0.0.1, if it is a server's.

 private:
  EVP_PKEY* key_;
  X509* own_;
  std::string certificate_;
  long serial_ = 1;
};
// Makes certificates that are good for an hour.

}  // namespace kevent::admin

#endif  // SERVER_ADMIN_TEST_CERTIFICATES_H_
