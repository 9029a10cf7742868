// SPDX-License-Identifier: Apache-2.0
#ifndef KEVENT_VM_TESTS_NAIO_FIXTURE_H_
#define KEVENT_VM_TESTS_NAIO_FIXTURE_H_

// What tests of operations share.

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "gtest/gtest.h"
#include "kevent/vm/tests/fixture.h"
#include "kevent/vm/tests/hostile.h"

namespace kevent::raw {

inline kevent_sqe Operation(uint8_t opcode, int fd, uint64_t user_data,
                            uint64_t a = 0, uint64_t b = 0) {
  kevent_sqe sqe = Change(opcode);
  sqe.fd = fd;
  sqe.user_data = user_data;
  sqe.arg[0] = a;
  sqe.arg[1] = b;
  return sqe;
}

inline kevent_sqe Recv(int fd, void* buffer, size_t bytes, uint64_t user_data) {
  return Operation(KEVENT_OP_RECV, fd, user_data, Address(buffer), bytes);
}

inline kevent_sqe SendOf(int fd, const std::string& text, uint64_t user_data) {
  return Operation(KEVENT_OP_SEND, fd, user_data, Address(text.data()),
                   text.size());
}

inline kevent_sqe Sendfile(int fd, int file, uint64_t offset, uint64_t length,
                           const kevent_parts* parts, uint64_t user_data) {
  kevent_sqe sqe = Operation(KEVENT_OP_SENDFILE, fd, user_data, offset, length);
  sqe.arg[2] = Address(parts);
  sqe.arg[3] = static_cast<uint64_t>(file);
  return sqe;
}

inline kevent_parts Parts(const std::string& header,
                          const std::string& trailer) {
  kevent_parts parts = {};
  parts.header = Address(header.data());
  parts.header_bytes = header.size();
  parts.trailer = Address(trailer.data());
  parts.trailer_bytes = trailer.size();
  return parts;
}

enum class Pool { kOrdinary, kPinned };

inline std::string PoolName(const testing::TestParamInfo<Pool>& info) {
  return info.param == Pool::kPinned ? "pinned" : "ordinary";
}

// Buffers of `each` bytes in `memory`, with the ring at `ring`.
inline kevent_register PoolOf(Pool kind, void* memory, uint64_t bytes,
                              uint32_t each, void* ring) {
  kevent_register g = {};
  g.size = sizeof g;
  g.opcode = kind == Pool::kPinned ? KEVENT_REGISTER_PINNED_POOL
                                   : KEVENT_REGISTER_POOL;
  g.address = Address(memory);
  g.bytes = bytes;
  g.buffer_bytes = each;
  g.ring = Address(ring);
  return g;
}

inline kevent_register Unregister(uint32_t pool) {
  kevent_register g = {};
  g.size = sizeof g;
  g.opcode = KEVENT_UNREGISTER;
  g.id = pool;
  return g;
}

inline std::string Content(size_t size, uint32_t seed = 1) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    text[i] = static_cast<char>((i + i / 4096 * 7 + seed) % 251);
  }
  return text;
}

// A file on the disk, and one in memory.
class TestFile {
 public:
  TestFile(const std::string& folder, const std::string& content) {
    std::string path = folder + "/file-XXXXXX";
    fd_.Reset(mkostemp(path.data(), O_CLOEXEC));
    EXPECT_TRUE(static_cast<bool>(fd_));
    unlink(path.c_str());
    EXPECT_EQ(static_cast<ssize_t>(content.size()),
              write(fd_.get(), content.data(), content.size()));
  }
  int fd() const { return fd_.get(); }
  void MakeCold() {
    ASSERT_EQ(0, fsync(fd()));
    ASSERT_EQ(0, posix_fadvise(fd(), 0, 0, POSIX_FADV_DONTNEED));
  }

 private:
  Fd fd_;
};

inline std::string ReadAll(int fd, size_t size) {
  std::string text(size, '\0');
  size_t got = 0;
  while (got < size) {
    const ssize_t n = read(fd, text.data() + got, size - got);
    if (n <= 0) break;
    got += static_cast<size_t>(n);
  }
  text.resize(got);
  return text;
}

class NaioTest : public QueueTest {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    ASSERT_TRUE(queue().setup().features & KEVENT_FEATURE_NAIO);
  }
  void Submit(const kevent_sqe& sqe) {
    ASSERT_TRUE(queue().Put(sqe));
    uint32_t submitted = 0;
    ASSERT_GE(queue().Submit(1, &submitted), 0);
    ASSERT_EQ(1u, submitted);
  }
  kevent_entry ExpectResult(uint64_t user_data, int64_t result,
                            bool more = false) {
    kevent_entry entry = Next();
    EXPECT_EQ(uint16_t{KEVENT_SOURCE_OPERATION}, entry.source)
        << Describe(entry);
    EXPECT_EQ(user_data, entry.user_data) << Describe(entry);
    EXPECT_EQ(result, entry.result) << Describe(entry);
    EXPECT_EQ(more, (entry.flags & KEVENT_ENTRY_MORE) != 0);
    EXPECT_EQ(!more, (entry.flags & KEVENT_ENTRY_DONE) != 0);
    return entry;
  }
  int64_t ResultOf(const kevent_sqe& sqe) {
    Submit(sqe);
    kevent_entry entry = Next();
    EXPECT_EQ(sqe.user_data, entry.user_data) << Describe(entry);
    return entry.result;
  }
};

}  // namespace kevent::raw

#endif  // KEVENT_VM_TESTS_NAIO_FIXTURE_H_
