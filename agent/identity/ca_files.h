// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>

#include "tunnel/base/error.h"
#include "tunnel/hbone/cert_store.h"
#include "tunnel/hbone/tls_x509.h"

/// The files of a CA and of issued certificates. Any thread; these calls block on the disk.
namespace weft::agent {

constexpr std::size_t kMaxPemBytes = std::size_t{256} << 10;
constexpr std::size_t kMaxCrlBytes = std::size_t{8} << 20;

/// A PEM file's text. Errors: kNotFound where it does not exist, kInvalid where it is larger than any PEM here, errno
/// otherwise.
Result<std::string> read_pem_file(const std::string& path, std::size_t at_most = kMaxPemBytes);

/// The private key in a PEM file that must be nobody else's: it belongs to root or this user, and its group and others
/// may not even read it. Its text never leaves locked memory (where the process has such). Errors: those of
/// read_pem_file, kDenied where the file is open to others, kInvalid where it holds no key.
Result<hbone::OpenSslPtr<EVP_PKEY>> read_key_file(const std::string& path);

/// Writes a file whole or not at all: a temporary file beside it, fsync, rename, fsync of the directory. A former file
/// of the name is replaced. Errors: errno with the path.
Result<void> write_file_atomically(const std::string& path, const std::string& text, mode_t mode);

/// After a rename in it. Errors: errno with the path.
Result<void> sync_directory(const std::string& dir);

/// Makes `dir` with mode 0700, its parents must exist. A directory that exists is taken as it is unless its group or
/// others may write to it, which is kDenied: they could put their own files in the place of ours.
Result<void> make_private_directory(const std::string& dir);

/// Writes an issued bundle as `dir`/cert.pem (the leaf, then its chain), key.pem (0600) and roots.pem, replacing former
/// ones; for `weftctl ca issue`. Errors: those of the two calls above.
Result<void> write_bundle(const hbone::CertificateBundle& bundle, const std::string& dir);

}  // namespace weft::agent
