// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_HTTP_LIST_NODE_H_
#define SERVER_HTTP_LIST_NODE_H_

namespace kevent::http {

struct ListNode {
  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { Unlink(); }

  ListNode* next = this;
  ListNode* prev = this;

  bool linked() const { return next != this; }

  void Unlink() {
    next->prev = prev;
    prev->next = next;
    next = prev = this;
  }
  // Nothing if it is in no list.

  void LinkBefore(ListNode* at) {
    next = at;
    prev = at->prev;
    prev->next = at->prev = this;
  }
  // Not while it is in a list.
};
// A place in a list, and the list itself: a ring with a node of its owner's, of
// which `next` is the first and `prev` the last. An object is in several lists
// by several bases. Not thread-safe.

}  // namespace kevent::http

#endif  // SERVER_HTTP_LIST_NODE_H_
