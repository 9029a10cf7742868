// SPDX-License-Identifier: Apache-2.0
#ifndef SERVER_LOOP_CANCEL_H_
#define SERVER_LOOP_CANCEL_H_

#include <cstdio>
#include <cstdlib>

namespace kevent::loop {

struct CancelNode {
  CancelNode* prev = nullptr;
  CancelNode* next = nullptr;
  void (*fn)(CancelNode*) = nullptr;
  bool linked = false;
};
// Embedded in what can be cancelled; `fn` is called once, already unlinked, and
// runs nothing of the caller's.

class CancelSource;

class CancelToken {
 public:
  CancelToken() = default;

  bool cancelled() const;
  // False for one without a source.

 private:
  friend class CancelSource;
  friend class AwaitBase;
  explicit CancelToken(CancelSource* source) : source_(source) {}

  CancelSource* source_ = nullptr;
};
// Refers to a CancelSource, or to none. No await may begin with it when its
// source is gone.

class CancelSource {
 public:
  CancelSource() = default;
  CancelSource(const CancelSource&) = delete;
  CancelSource& operator=(const CancelSource&) = delete;
  ~CancelSource() {
    if (head_) {
      fprintf(stderr,
              "kevent: a CancelSource was destroyed while an await waits with "
              "its token\n");
      abort();
    }
  }

  CancelToken token() { return CancelToken(this); }

  bool cancelled() const { return cancelled_; }

  void Cancel() {
    cancelled_ = true;
    while (CancelNode* node = head_) {
      Remove(node);
      node->fn(node);
    }
  }
  // Ends every await that waits with a token of this, and every later one at
  // once, with -ECANCELED; one whose result is there already keeps it. Resumes
  // nobody within the call. In the loop's thread; again is nothing.

  void Add(CancelNode* node) {
    node->prev = nullptr;
    node->next = head_;
    if (head_) head_->prev = node;
    head_ = node;
    node->linked = true;
  }
  void Remove(CancelNode* node) {
    if (!node->linked) return;
    (node->prev ? node->prev->next : head_) = node->next;
    if (node->next) node->next->prev = node->prev;
    node->linked = false;
  }
  // For awaits.

 private:
  CancelNode* head_ = nullptr;
  bool cancelled_ = false;
};
// Ends what waits, from outside it. Belongs to one loop's thread. It must not
// be destroyed while an await waits with its token, but may be as soon as it
// has been cancelled.

inline bool CancelToken::cancelled() const {
  return source_ && source_->cancelled();
}

}  // namespace kevent::loop

#endif  // SERVER_LOOP_CANCEL_H_
