// SPDX-License-Identifier: Apache-2.0
#include "server/admin/certificates.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>

namespace kevent::admin {
namespace {

template <auto kFree>
struct Deleter {
  template <typename T>
  void operator()(T* p) const {
    kFree(p);
  }
};
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Deleter<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;

Bio Open(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

Certificate ReadCertificate(const std::string& pem) {
  return Certificate(
      PEM_read_bio_X509(Open(pem).get(), nullptr, nullptr, nullptr));
}

absl::Status Invalid(const char* text) {
  ERR_clear_error();
  return absl::InvalidArgumentError(text);
}

}  // namespace

absl::Status CheckCertificates(const std::string& certificate,
                               const std::string& key, const std::string& ca) {
  const Certificate own = ReadCertificate(certificate);
  if (!own) return Invalid("the admin service's certificate is none, in PEM");
  // Nobody is there to be asked for a password.
  auto no_password = [](char*, int, int, void*) { return 0; };
  const Key own_key(
      PEM_read_bio_PrivateKey(Open(key).get(), nullptr, no_password, nullptr));
  if (!own_key) {
    return Invalid("the admin service's key is none, in PEM without password");
  }
  if (X509_check_private_key(own.get(), own_key.get()) != 1) {
    return Invalid("the admin service's key is not that of its certificate");
  }
  if (!ReadCertificate(ca)) {
    return Invalid("the authority of admin clients is no certificate, in PEM");
  }
  return absl::OkStatus();
}

}  // namespace kevent::admin
