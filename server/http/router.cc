// SPDX-License-Identifier: Apache-2.0
#include "server/http/router.h"

#include <algorithm>

namespace kevent::http {

void Router::AddRoute(Method method, std::string_view pattern, Fn fn) {
  bool below =
      pattern.size() >= 2 && pattern.substr(pattern.size() - 2) == "/*";
  if (below) pattern.remove_suffix(1);
  Route route = {method, std::string(pattern), below, std::move(fn)};
  auto before = [](const Route& a, const Route& b) {
    if (a.below != b.below) return b.below;
    return a.path.size() > b.path.size();
  };
  routes_.insert(
      std::upper_bound(routes_.begin(), routes_.end(), route, before),
      std::move(route));
}

void Router::Handle(Exchange* x) {
  const Request& r = x->request();
  const Method method = r.method == Method::kHead ? Method::kGet : r.method;
  std::string allow;
  for (Route& route : routes_) {
    bool match = route.below ? r.path.substr(0, route.path.size()) == route.path
                             : r.path == route.path;
    if (!match) continue;
    if (route.method == method) {
      route.fn(x);
      return;
    }
    allow += allow.empty() ? "Allow: " : ", ";
    allow += MethodName(route.method);
    if (route.method == Method::kGet) allow += ", HEAD";
  }
  if (!allow.empty()) {
    allow += "\r\n";
    x->RespondError(r.method == Method::kOther ? 501 : 405, allow);
  } else if (otherwise_) {
    otherwise_->Handle(x);
  } else {
    x->RespondError(404);
  }
}

}  // namespace kevent::http
