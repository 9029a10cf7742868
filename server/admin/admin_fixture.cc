// SPDX-License-Identifier: Apache-2.0
#include "server/admin/admin_fixture.h"

#include <grpcpp/generic/generic_stub.h>

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

namespace kevent::admin {

AdminTest::AdminTest(size_t workers)
    : service_(workers), dir_(MakeSocketDirectory()) {}

AdminTest::~AdminTest() {
  admin_.reset();
  std::error_code error;
  std::filesystem::remove_all(dir_, error);
}

void AdminTest::Start(Target target, AdminServer::Options options) {
  if (options.address.empty()) options.address = address();
  auto admin = AdminServer::Start(std::move(target), options);
  ASSERT_TRUE(admin.ok()) << admin.status();
  admin_ = *std::move(admin);
}

std::shared_ptr<grpc::Channel> AdminTest::Channel() const {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(
      address(), grpc::InsecureChannelCredentials(), arguments);
}

std::unique_ptr<grpc::ClientContext> AdminTest::Context() {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() +
                        std::chrono::seconds(30));
  context->set_wait_for_ready(true);
  return context;
}

grpc::Status AdminTest::CallRaw(const std::shared_ptr<grpc::Channel>& channel,
                                const std::string& method,
                                std::string_view request,
                                std::string* response) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  auto context = Context();
  const grpc::Slice slice(request.data(), request.size());
  const grpc::ByteBuffer sent(&slice, 1);
  auto call = stub.PrepareUnaryCall(context.get(), method, sent, &queue);
  call->StartCall();
  grpc::ByteBuffer received;
  grpc::Status status;
  call->Finish(&received, &status, &queue);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  std::vector<grpc::Slice> slices;
  response->clear();
  if (status.ok() && received.Dump(&slices).ok()) {
    for (const grpc::Slice& part : slices) {
      response->append(reinterpret_cast<const char*>(part.begin()),
                       part.size());
    }
  }
  return status;
}

int AdminTest::Health() const {
  std::string response;
  if (!CallRaw(Channel(), "/grpc.health.v1.Health/Check", "", &response).ok()) {
    return -1;
  }
  // HealthCheckResponse: one field, number 1, a varint.
  return response.size() == 2 && response[0] == 8 ? response[1] : -1;
}

}  // namespace kevent::admin
