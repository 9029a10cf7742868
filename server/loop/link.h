// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOOP_LINK_H_
#define SERVER_LOOP_LINK_H_

namespace kevent {

template <typename Tag>
struct Link {
  Link() = default;
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  ~Link() { Unlink(); }

  bool linked() const { return next != this; }
  void Unlink() {
    prev->next = next;
    next->prev = prev;
    prev = next = this;
  }
  // Nothing if it is in no list.

  void MoveToEndOf(Link* head) {
    Unlink();
    prev = head->prev;
    next = head;
    prev->next = next->prev = this;
  }
  // Leaves the list it is in and enters that of `head` as the last. With a
  // member instead of the head: enters right before it.

  Link* prev = this;
  Link* next = this;
};
// A member, or the head, of a circular list of Tag's: of the head, `next` is
// the first and `prev` the last. An object is in several lists by several
// bases. Leaves its list when it dies. Not thread-safe.

}  // namespace kevent

#endif  // SERVER_LOOP_LINK_H_
