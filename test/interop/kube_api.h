// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/kube/api_client.h"
#include "test/support/netns.h"
#include "test/support/process.h"

namespace weft::test {

/// A document of a manifest, and where the API has what it describes.
struct Manifest {
  std::string kind, path, text;
};
/// Those of a text in YAML whose kind, apiVersion, metadata.name and metadata.namespace stand on lines of their own.
std::vector<Manifest> manifest_documents(const std::string& yaml);

/// A real kube-apiserver and etcd on free ports, with RBAC. The programs come from WEFT_KUBE_APISERVER and WEFT_ETCD,
/// each a path and, behind blanks, arguments that come first.
class KubeApi {
 public:
  /// Empty where the programs are not here.
  [[nodiscard]] static std::string missing();
  /// Starts both, in that namespace where one is given, and waits until the API is ready on that address. Throws
  /// TestError where it does not become so.
  explicit KubeApi(const Netns* netns = nullptr, std::string address = "127.0.0.1");

  /// How to reach it as its administrator, or with the token of that file.
  [[nodiscard]] kube::ApiConfig config(const std::string& token_file = "") const;
  /// As the administrator. Throws where the API refuses.
  kube::Json ask(const kube::ApiRequest& request);
  /// What it says, whatever that is.
  kube::ApiResponse send(const kube::ApiRequest& request);
  /// Server-side apply of one document in YAML to the collection or object that it is of.
  kube::ApiResponse apply(const std::string& path, const std::string& yaml, bool dry_run);
  /// A service account's token, in a file whose path this gives. `spec` is that of the TokenRequest.
  std::string token_of(const std::string& namespace_name, const std::string& account,
                       const kube::Json& spec = kube::Json::object());
  /// Everything that the manifest gives to its account: the account, the role and its binding.
  void grant(const std::string& manifest_path);
  /// The API server alone is killed.
  void kill();
  /// It comes back on the same port, and is ready when this returns.
  void restart();

 private:
  void start_server();

  const Netns* netns_;
  std::string address_;
  ScratchDir folder_;
  int port_ = 0, tokens_ = 0;
  std::string etcd_url_;
  std::unique_ptr<Process> etcd_, server_;
  std::unique_ptr<kube::ApiClient> admin_;

  template <class Work>
  auto in_place(Work work) {
    return netns_ == nullptr ? work() : run_in(*netns_, work);
  }
};

}  // namespace weft::test
