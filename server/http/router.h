// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_ROUTER_H_
#define SERVER_HTTP_ROUTER_H_

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "server/http/message.h"
#include "server/http/server.h"
#include "server/loop/task.h"

namespace kevent::http {

class Router final : public Handler {
 public:
  using Fn = absl::AnyInvocable<void(Exchange*)>;

  template <typename F>
  void On(Method method, std::string_view pattern, F fn) {
    if constexpr (std::is_same_v<std::invoke_result_t<F&, Exchange*>,
                                 loop::Task<void>>) {
      AddRoute(method, pattern, [fn = std::move(fn)](Exchange* x) mutable {
        x->loop()->Spawn(fn(x));
      });
    } else {
      AddRoute(method, pattern, std::move(fn));
    }
  }
  // `fn(Exchange*)` answers requests for `pattern`: a path, "/status", or one
  // that ends in "/*", "/api/*", for all below it. It may be a coroutine, that
  // is return loop::Task<void>, which is spawned on the loop and must have
  // responded when it ends. Exact paths go before patterns, longer patterns
  // before shorter ones; paths are compared as received. HEAD goes to the
  // function for GET.

  template <typename F>
  void Get(std::string_view pattern, F fn) {
    On(Method::kGet, pattern, std::move(fn));
  }
  template <typename F>
  void Post(std::string_view pattern, F fn) {
    On(Method::kPost, pattern, std::move(fn));
  }

  void Otherwise(Handler* handler) { otherwise_ = handler; }
  // Gets what no pattern matches; without one that is 404. Not owned.

  void Handle(Exchange* exchange) override;
  // A path that is there, but not for this method, is 405, or 501 for a method
  // that HTTP does not know.

 private:
  struct Route {
    Method method;
    std::string path;  // without the '*'
    bool below;
    Fn fn;
  };

  void AddRoute(Method method, std::string_view pattern, Fn fn);

  std::vector<Route> routes_;  // the first that matches wins
  Handler* otherwise_ = nullptr;
};
// Chooses by method and path. Set it up before it serves; one thread.

}  // namespace kevent::http

#endif  // SERVER_HTTP_ROUTER_H_
