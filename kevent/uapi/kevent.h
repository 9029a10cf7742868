/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR Apache-2.0 */
/*
 * The interface between /dev/kevent and its users. This file is its manual.
 *
 * One open of /dev/kevent is one queue. It belongs to the address space (mm)
 * of the opener: KEVENT_SETUP, KEVENT_CONTROL and KEVENT_ENTER from any other
 * fail with EXDEV, and its rings are not inherited by fork(2). All calls may
 * be made by several threads at once.
 *
 *	int fd = open("/dev/kevent", O_RDWR | O_CLOEXEC);
 *	struct kevent_setup setup = { .size = sizeof(setup),
 *				      .abi_version = KEVENT_ABI_VERSION };
 *	ioctl(fd, KEVENT_SETUP, &setup);
 *	struct kevent_ring *ring = mmap(NULL, setup.ring_bytes,
 *			PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
 *
 *	struct kevent_sqe add = { .opcode = KEVENT_OP_ADD,
 *		.source = KEVENT_SOURCE_POLL, .fd = socket,
 *		.events = KEVENT_IN, .flags = KEVENT_ALWAYS_QUEUE,
 *		.user_data = 42 };
 *	struct kevent_control control = { .size = sizeof(control),
 *		.count = 1, .changes = (uintptr_t)&add };
 *	ioctl(fd, KEVENT_CONTROL, &control);	// add.result, add.handle
 *
 * Entries then appear in the ring as things happen, without a call. To wait
 * for them: KEVENT_ENTER, or poll(2) on fd.
 *
 * Extension: every struct that is passed by address begins with its size. The
 * kernel takes any size from the first published one (KEVENT_*_SIZE_V1) on; if
 * it is larger than the kernel's, the bytes beyond must be zero, otherwise the
 * call fails with E2BIG. A field, flag or bit not defined here must be zero,
 * otherwise the call fails with EINVAL. All structs have the same layout for
 * 32-bit and 64-bit callers; pointers are passed as __u64.
 */
#ifndef _UAPI_KEVENT_H
#define _UAPI_KEVENT_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define KEVENT_ABI_VERSION	1

/* ---- Sources of events and their masks ---- */

/* kevent_sqe.source and kevent_entry.source */
enum kevent_source {
	/* An operation (KEVENT_OP_NOP and up), in entries only. */
	KEVENT_SOURCE_OPERATION	= 0,

	/*
	 * A socket; .fd. Masks: KEVENT_SOCKET_*. ENOTSOCK if it is none.
	 * The queue holds no reference that keeps a close(2) from closing it:
	 * with the last descriptor the interest ends (KEVENT_ENTRY_BROKEN).
	 * A listening socket's interest ends silently; remove it.
	 */
	KEVENT_SOURCE_SOCKET	= 1,

	/*
	 * Any file with ->poll; .fd. Masks: KEVENT_IN ... as of poll(2). A
	 * socket is watched as by KEVENT_SOURCE_SOCKET. Other files are held
	 * open by the interest until it is removed, or the queue ends.
	 * A signalfd speaks of the signals of whoever asks: it is tested by
	 * KEVENT_ENTER alone.
	 * EPERM for files that cannot be polled (regular ones), EINVAL for
	 * those that would close a circle: another queue, epoll, io_uring.
	 */
	KEVENT_SOURCE_POLL	= 2,

	/*
	 * A file or directory; .fd, which is not held (O_PATH will do). Masks:
	 * KEVENT_INODE_*. Entries: .events what happened, data[0] the cookie
	 * that the two halves of a rename share, data[1] the inode number of
	 * the directory's entry concerned, 0 if it is the file itself.
	 */
	KEVENT_SOURCE_INODE	= 3,

	/*
	 * A timer; .fd is its clock (CLOCK_MONOTONIC, CLOCK_REALTIME,
	 * CLOCK_BOOTTIME), arg[0] nanoseconds from now or, with
	 * KEVENT_ABSOLUTE, the time on that clock, arg[1] the period in
	 * nanoseconds or 0. A period shorter than KEVENT_TIMER_MIN_NS is
	 * EINVAL. While its entry is unread a period stands still; it goes on
	 * with the KEVENT_ENTER after that was read. Entries: data[0]
	 * expirations since the last entry. Without a period it is over with
	 * its first entry.
	 */
	KEVENT_SOURCE_TIMER	= 4,

	/*
	 * A signal; .fd is its number. It must be blocked in every thread, as
	 * for signalfd(2), and is taken by KEVENT_ENTER of the opener's
	 * process: until then KEVENT_RING_PENDING is set. Entries: .events the
	 * number, .result si_code, data[0] sender's pid (high half) and uid
	 * (low half), data[1] the value queued with it.
	 */
	KEVENT_SOURCE_SIGNAL	= 5,

	/*
	 * Made to happen by KEVENT_OP_READY, from any thread of the process.
	 * Entries: data[0] is that change's arg[0], data[1] how many changes
	 * it stands for: those that find the ring full are merged, and the
	 * last arg[0] is kept.
	 */
	KEVENT_SOURCE_USER	= 6,
};

#define KEVENT_TIMER_MIN_NS	1000

/*
 * The bits of poll(2). KEVENT_ERR and KEVENT_HUP are always reported, and may be
 * all that is waited for (0).
 */
#define KEVENT_IN		0x0001
#define KEVENT_PRI		0x0002
#define KEVENT_OUT		0x0004
#define KEVENT_ERR		0x0008
#define KEVENT_HUP		0x0010
#define KEVENT_RDHUP		0x2000
#define KEVENT_POLL_EVENTS	(KEVENT_IN | KEVENT_PRI | KEVENT_OUT | \
				 KEVENT_ERR | KEVENT_HUP | KEVENT_RDHUP)

#define KEVENT_SOCKET_RECV	(KEVENT_IN | KEVENT_RDHUP)
#define KEVENT_SOCKET_ACCEPT	KEVENT_IN
#define KEVENT_SOCKET_SEND	KEVENT_OUT

/* The values of inotify(7)'s IN_* of the same names. */
#define KEVENT_INODE_MODIFY	0x00000002
#define KEVENT_INODE_ATTRIB	0x00000004
#define KEVENT_INODE_CLOSE_WRITE 0x00000008
#define KEVENT_INODE_MOVED_FROM	0x00000040
#define KEVENT_INODE_MOVED_TO	0x00000080
#define KEVENT_INODE_CREATE	0x00000100
#define KEVENT_INODE_REMOVE	0x00000200
#define KEVENT_INODE_REMOVE_SELF 0x00000400
#define KEVENT_INODE_MOVE_SELF	0x00000800
#define KEVENT_INODE_EVENTS	0x00000fce

/* ---- Submission ---- */

/* kevent_sqe.opcode */
enum kevent_opcode {
	/* Does nothing and completes with 0. */
	KEVENT_OP_NOP		= 0,

	/*
	 * Adds an interest. Reads source, flags, fd, user_data, events, arg;
	 * writes handle. If the source is ready at once: with
	 * KEVENT_ALWAYS_QUEUE, and always in the submission ring, an entry is
	 * made; otherwise `result` is KEVENT_READY and `events` what is ready,
	 * which counts as an entry delivered.
	 * ENOSPC: the queue's or the user's limit of interests.
	 */
	KEVENT_OP_ADD		= 1,

	/*
	 * Changes an interest: reads handle, events (or the timer's arg),
	 * user_data and flags, all anew; enables it (unless KEVENT_DISABLED)
	 * and tests it as KEVENT_OP_ADD does. An unread entry stays as it is.
	 * The events of an inode may only become fewer than those of
	 * KEVENT_OP_ADD (EINVAL).
	 */
	KEVENT_OP_MODIFY	= 2,

	/*
	 * Ends an interest. After it no entry of that handle is written; one
	 * that is unread may still be in the ring.
	 */
	KEVENT_OP_REMOVE	= 3,

	/* Silences an interest; what happens meanwhile makes no entry. */
	KEVENT_OP_DISABLE	= 4,

	/*
	 * Makes it speak again, and tests it as KEVENT_OP_ADD does (poll, level
	 * or not; other sources have no state to test).
	 */
	KEVENT_OP_ENABLE	= 5,

	/* Makes a KEVENT_SOURCE_USER interest happen. */
	KEVENT_OP_READY		= 6,

	/*
	 * Network AIO, with KEVENT_FEATURE_NAIO (EOPNOTSUPP without): requests
	 * that complete once. They are taken from the submission ring alone,
	 * and never block it. `fd` is the socket, `arg` and `events`
	 * (KEVENT_RECV_POOL ...) are described with each.
	 *
	 * What can be done at once is done by the KEVENT_ENTER that submits;
	 * the rest when the socket is ready, by whoever waits in KEVENT_ENTER,
	 * or in a worker of the kernel if nobody does within a few milliseconds.
	 * (KEVENT_REGISTER_PINNED_POOL: what arrives needs neither.)
	 * Memory and structs that an operation names are its own until its last
	 * entry. It ends with EAGAIN if too many are pending:
	 * KEVENT_MAX_OPERATIONS, or the user's limit of interests, which counts
	 * operations as well.
	 *
	 * Operations of one socket and direction (accept, recv; connect, send,
	 * sendfile, shutdown) run in the order of their submission to this
	 * queue. If a sending one ends short, those that wait behind it end with
	 * ECANCELED.
	 *
	 * KEVENT_LINK: the next element of the submission ring, an operation too
	 * (ACCEPT to CLOSE; anything else ends with EINVAL undone), begins when
	 * this one has transferred its full length (of a pool: anything at all),
	 * and ends with ECANCELED if it has not; and so on. What they name is
	 * looked up, and their place among those of their socket taken, when they
	 * are submitted; what is wrong is told when their turn comes. One that is
	 * no operation, or one too many (EAGAIN), says so at once, and those behind
	 * it in the chain do not begin. A chain ends with the elements that one
	 * KEVENT_ENTER takes (`submitted`).
	 *
	 * A pending operation holds its socket open, but for Unix sockets: those
	 * can carry the queue itself, and their operations end by CANCEL or when
	 * the socket wakes them after its close (EBADF). All end without an
	 * entry when the process that opened the queue has closed its last
	 * descriptor of it, ends, or (if the ring is mapped) executes another
	 * program, even if others have descriptors still.
	 *
	 * Operations act with the credentials of the thread that submitted them.
	 * Those that send on a Unix socket or connect one tell the peer which
	 * process did so: they are done by KEVENT_ENTER alone, as is ACCEPT, of a
	 * thread with the submitter's table of descriptors; the ring's PENDING
	 * flag, and poll(2), say when. It is the same with one that a worker
	 * cannot go on with, as memory that it names is not there (never touched,
	 * swapped out, userfaultfd(2)): workers do not wait for pages. They leave
	 * the following to KEVENT_ENTER in any case, for it would be harmed by
	 * such a page in the middle: receiving, save into a pinned pool, from
	 * anything but a Unix stream or TCP (without kTLS or a BPF map); sending
	 * memory by anything but such TCP; and a RECV with KEVENT_LINK into more
	 * than a page. The hooks of security modules for accept(2), connect(2)
	 * and shutdown(2) are not open to modules, and are not asked (those for
	 * sending, receiving and opening are, but for what a pinned pool receives
	 * as it arrives): who confines a process by them must keep it from
	 * /dev/kevent.
	 */

	/*
	 * A connection of the listening socket `fd`, as accept4(2): arg[0] is 0
	 * or of SOCK_NONBLOCK, SOCK_CLOEXEC. result: the new descriptor. They are
	 * made by KEVENT_ENTER alone, of a thread with the table of descriptors
	 * of the one that submitted. With KEVENT_MULTISHOT again and again;
	 * where there is no descriptor left (EMFILE, ENFILE) it ends and the
	 * connection stays in the backlog. Of TCP, MPTCP and Unix sockets
	 * (EOPNOTSUPP).
	 *
	 * With KEVENT_ACCEPT_RECV, and arg[1] a pool's id, the entry brings what
	 * the connection has received by then: KEVENT_ENTRY_BUFFER, data[0] the
	 * buffer, data[1] bytes in it. Nothing is waited for (a listener with
	 * TCP_DEFER_ACCEPT has it in most cases): without bytes, at the end of the
	 * stream, on an error, or without a free buffer that can be written the
	 * connection comes alone, and recv tells. Descriptors that a Unix peer has
	 * sent with the bytes are closed.
	 */
	KEVENT_OP_ACCEPT	= 16,

	/*
	 * arg[0]: address of a sockaddr, arg[1]: its bytes; connect(2). EAGAIN:
	 * the backlog of a Unix listener is full, which is not waited for.
	 */
	KEVENT_OP_CONNECT	= 17,

	/*
	 * arg[0]: address of a buffer, arg[1]: its bytes. result: bytes
	 * received, 0 at the end of the stream. With KEVENT_RECV_POOL arg[0] is
	 * a pool's id and arg[1] 0: a buffer is taken when there is data, and
	 * named in data[0] of the entry (KEVENT_ENTRY_BUFFER). If there is none
	 * the data stays where it is; KEVENT_ENTER looks again when some were
	 * given back. KEVENT_MULTISHOT, with a pool: an entry for each piece,
	 * until the end of the stream or an error.
	 */
	KEVENT_OP_RECV		= 18,

	/*
	 * Sends all of arg[1] bytes at address arg[0], or with
	 * KEVENT_SEND_VECTOR of the arg[1] (at most KEVENT_MAX_VECTOR) pieces,
	 * struct kevent_vector, there, but for the first arg[2] bytes of them.
	 * result: bytes sent; fewer than all if it failed or was cancelled after
	 * the first. With KEVENT_SEND_REFERENCE, for KEVENT_FEATURE_REFERENCE, a
	 * socket of TCP may get the very pages, as by vmsplice(2) and splice(2):
	 * they must not be written any more, also after the entry. They may be
	 * unmapped.
	 */
	KEVENT_OP_SEND		= 19,

	/*
	 * Sends arg[1] bytes of the file with descriptor arg[3] from offset
	 * arg[0] on, by reference to the page cache where the file system allows
	 * it; before and behind them what arg[2], if not 0, is the address of: a
	 * struct kevent_parts. Pages that are not in the cache are read by a
	 * worker; data[0] of the entry: how often that was waited for. result:
	 * bytes in all; short, and without the trailer, if the file ends early.
	 * Regular files only (EINVAL).
	 */
	KEVENT_OP_SENDFILE	= 20,

	/*
	 * As KEVENT_OP_SENDFILE, of a file that it opens itself: arg[3] is the
	 * address of a struct kevent_path, read when it is submitted. An arg[1]
	 * of ~0 is all from arg[0] on. The file is opened with the submitter's
	 * rights before anything is sent; result, if that fails: as of
	 * openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS (EXDEV also
	 * if renames never let it find out), or EISDIR, or EINVAL for what is no
	 * regular file. What is not in the caches is
	 * looked up by a worker. data[1] of the entry: the file's size in bytes
	 * when it was opened.
	 */
	KEVENT_OP_SENDFILE_PATH	= 21,

	/* shutdown(2), behind what was submitted before; arg[0]: SHUT_*. */
	KEVENT_OP_SHUTDOWN	= 22,

	/*
	 * close(2) of any descriptor, at once or, linked, in its turn: by
	 * KEVENT_ENTER alone, of a thread with the submitter's table of
	 * descriptors. It has no socket: CANCEL finds it with `fd` -1.
	 */
	KEVENT_OP_CLOSE		= 23,

	/*
	 * Ends operations of this queue with that user_data (arg[0]) or with
	 * KEVENT_CANCEL_ANY all, on the socket `fd`, or if `fd` is -1 (slower) on
	 * all. Each makes its last entry, with ECANCELED or what it has done.
	 * result: how many were so named, or ENOENT.
	 */
	KEVENT_OP_CANCEL	= 24,
};

/* kevent_sqe.events of operations */
#define KEVENT_ACCEPT_RECV	0x0001
#define KEVENT_RECV_POOL	0x0001
/* Nothing is expected yet: waits for the socket before the first try. */
#define KEVENT_RECV_WAIT	0x0002
#define KEVENT_SEND_MORE	0x0001	/* MSG_MORE of send(2) */
#define KEVENT_SEND_VECTOR	0x0002
#define KEVENT_SEND_REFERENCE	0x0004
#define KEVENT_CANCEL_ANY	0x0001

#define KEVENT_MAX_VECTOR	1024

struct kevent_vector {
	__u64	address;
	__u64	bytes;
};

/* Of KEVENT_OP_SENDFILE; read when it is submitted, the parts until its end. */
struct kevent_parts {
	__u64	header;		/* address */
	__u64	header_bytes;
	__u64	trailer;
	__u64	trailer_bytes;
	/* 0, or address of a __u64: bytes sent so far, when it has to wait. */
	__u64	progress;
	__u64	reserved[3];	/* 0 */
};

/* Of KEVENT_OP_SENDFILE_PATH. */
struct kevent_path {
	__u64	path;		/* address of a string, at most 4095 bytes and NUL */
	__s32	directory;	/* descriptor; nothing above it is found */
	__u32	flags;		/* 0 */
	__u64	reserved[2];	/* 0 */
};

/* kevent_sqe.flags of interests. Without EDGE, ONESHOT, DISPATCH: level. */
#define KEVENT_EDGE		0x0001	/* each change makes an entry */
#define KEVENT_ONESHOT		0x0002	/* removed with its first entry */
#define KEVENT_DISPATCH		0x0004	/* disabled by each entry */
#define KEVENT_WAKE_ALL		0x0008	/* wakes all waiters, not one */
#define KEVENT_ALWAYS_QUEUE	0x0010	/* see KEVENT_OP_ADD */
/*
 * Tested once more when KEVENT_ENTER copies the entry out; dropped if the
 * source is not ready any more, and the interest waits on. Entries read from the
 * ring are not tested.
 */
#define KEVENT_LAST_CHECK	0x0020
#define KEVENT_DISABLED		0x0040	/* added silent */
#define KEVENT_ABSOLUTE		0x0080	/* arg[0] of a timer is a time */
#define KEVENT_INTEREST_FLAGS	0x00ff

/* kevent_sqe.flags of what is in the submission ring */
#define KEVENT_SKIP_SUCCESS	0x0100	/* no entry unless it failed */
#define KEVENT_LINK		0x0200	/* operations: the next one waits for it */
#define KEVENT_MULTISHOT	0x0400	/* accept, recv: several entries; not linked */

/* Positive results of changes */
#define KEVENT_READY		1

/*
 * A change or an operation, 64 bytes: an element of kevent_control.changes, and
 * of the submission ring. The kernel copies it before it looks at it. Changes
 * in the submission ring make an entry with source KEVENT_SOURCE_OPERATION,
 * their user_data, `result`, and `handle`, unless KEVENT_SKIP_SUCCESS.
 */
struct kevent_sqe {
	__u8	opcode;
	__u8	source;
	__u16	flags;
	__s32	fd;
	__u64	user_data;	/* comes back in every entry */
	__u64	handle;		/* in; out for KEVENT_OP_ADD */
	__u32	events;		/* in; out with KEVENT_READY */
	__s32	result;		/* out (KEVENT_CONTROL): 0, KEVENT_READY, -errno; in: 0 */
	__u64	arg[4];		/* of the source or operation; the others 0 */
};

/* ---- Completion ---- */

/* kevent_entry.flags */
#define KEVENT_ENTRY_MORE	0x0001	/* there may be further entries */
#define KEVENT_ENTRY_BROKEN	0x0002	/* the source is gone; result: why */
#define KEVENT_ENTRY_DONE	0x0004	/* the last one: the handle is free */
#define KEVENT_ENTRY_BUFFER	0x0008	/* data[0]: the pool's buffer with the data */
/* Several happened while the ring was full, and were merged into this one. */
#define KEVENT_ENTRY_MERGED	0x0010

/*
 * One event or completion, 64 bytes.
 *
 * At most one entry of a level interest is unread. When it has been read, the
 * next KEVENT_ENTER tests the source again; what changes in between is reported
 * as it happens.
 *
 * An edge interest makes no second entry while an unread one says the same. An
 * entry counts as read when cq_head has passed it: copy it and move cq_head
 * before acting upon it, otherwise what happens during the act is taken for
 * what the entry told.
 */
struct kevent_entry {
	__u64	user_data;
	__u64	handle;		/* KEVENT_HANDLE_*; of operations: as in their sqe */
	__u32	events;		/* a mask, or the signal's number */
	__u16	source;		/* enum kevent_source */
	__u16	flags;
	/* Operations; si_code; with BROKEN: EBADF closed, ENOENT gone, negative. */
	__s64	result;
	__u32	sequence;	/* the entry's number in the ring */
	__u32	reserved;	/* 0 */
	__u64	data[3];	/* of the source; the others 0 */
};

/*
 * A handle names an interest: an index below the limit of interests, and a
 * generation that is never 0. The index is used again, with another generation.
 */
#define KEVENT_HANDLE_INDEX(h)		((__u32)(h))
#define KEVENT_HANDLE_GENERATION(h)	((__u32)((h) >> 32))

/* ---- The rings ---- */

/* kevent_ring.flags */
/*
 * Something waits that is not in the ring: entries that found it full, a
 * signal, a level interest to be tested, an operation that a thread of its
 * submitter has to go on with. Having emptied the ring, call KEVENT_ENTER.
 */
#define KEVENT_RING_PENDING	0x0001
/*
 * A recv waits for a buffer of its pool. Having given one back (and after a full
 * memory barrier) call KEVENT_ENTER.
 */
#define KEVENT_RING_STARVED	0x0002

/*
 * What mmap(2) at offset 0 shows. Heads and tails count up forever and wrap;
 * element i of a ring is at index i & (entries - 1). Where a word is written by
 * the other side read it with acquire, and write yours with release semantics.
 *
 *	completion: while (head != acquire(cq_tail)) {
 *			entry = cq[head & (cq_entries - 1)];	// a copy
 *			release(cq_head) = ++head;
 *		}
 *	submission: sq[tail & (sq_entries - 1)] = ...; release(sq_tail) = ++tail;
 *		then KEVENT_ENTER with to_submit.
 *
 * Several threads that read the completion ring must agree among themselves;
 * KEVENT_ENTER with entries copied out needs no agreement, but must not be mixed
 * with reading the ring.
 *
 * The kernel trusts nothing in here. A nonsensical cq_head makes the ring look
 * full to it until KEVENT_ENTER, which fails with EINVAL.
 */
struct kevent_ring {
	/* Written by the kernel. */
	__u32	cq_tail;
	__u32	flags;
	__u32	sq_head;	/* elements before it have been copied */
	__u32	reserved0[13];
	/* Written by the user. */
	__u32	cq_head;
	__u32	sq_tail;
	__u32	reserved1[14];
	/* Constant. Offsets are bytes from the beginning of the mapping. */
	__u32	cq_entries;
	__u32	sq_entries;
	__u32	cq_offset;	/* struct kevent_entry[cq_entries] */
	__u32	sq_offset;	/* struct kevent_sqe[sq_entries] */
	__u32	reserved2[12];
};

/* ---- ioctl(2) ---- */

#define KEVENT_IOC_MAGIC	0xbb

/* kevent_setup.features */
#define KEVENT_FEATURE_NAIO	0x0001	/* opcodes from KEVENT_OP_ACCEPT on */
#define KEVENT_FEATURE_PINNED_POOLS 0x0002 /* KEVENT_REGISTER_PINNED_POOL */
#define KEVENT_FEATURE_REFERENCE 0x0004	/* KEVENT_SEND_REFERENCE */

#define KEVENT_MAX_RING		32768	/* elements of either ring */
#define KEVENT_DEFAULT_CQ	4096
#define KEVENT_DEFAULT_SQ	256
#define KEVENT_MAX_INTERESTS	(1u << 24)
#define KEVENT_MAX_CHANGES	65536	/* in one call */
#define KEVENT_MAX_OPERATIONS	(1u << 20)	/* pending in one queue */

/*
 * KEVENT_SETUP: makes the rings. Once for each queue, before all else; EBUSY
 * the second time, ENXIO for other calls before it. The rings are charged to
 * the opener's RLIMIT_MEMLOCK (ENOMEM above it).
 */
struct kevent_setup {
	__u32	size;		/* of this struct */
	__u32	abi_version;	/* EINVAL if the kernel's is older; out: its own */
	__u32	flags;		/* 0 */
	__u32	features;	/* out: KEVENT_FEATURE_* */
	__u32	cq_entries;	/* a power of two; 0: KEVENT_DEFAULT_CQ; out */
	__u32	sq_entries;	/* a power of two; 0: KEVENT_DEFAULT_SQ; out */
	__u32	max_interests;	/* of this queue; 0: 1 << 20; out */
	__u32	reserved0;
	__u64	ring_bytes;	/* out: what to mmap */
	__u64	reserved[3];
};
#define KEVENT_SETUP_SIZE_V1	64

/*
 * KEVENT_CONTROL: makes changes, in order; each has its own result. Returns how
 * many were made, successfully or not; an error only if it made none.
 */
struct kevent_control {
	__u32	size;
	__u32	count;		/* EINVAL above KEVENT_MAX_CHANGES */
	__u64	changes;	/* struct kevent_sqe[count], read and written */
	__u32	flags;		/* 0 */
	__u32	reserved;
};
#define KEVENT_CONTROL_SIZE_V1	24

/* kevent_enter.flags */
#define KEVENT_ENTER_ABSOLUTE	0x0001	/* timeout_ns is a time on `clock` */

/*
 * KEVENT_ENTER: submits, then waits until `min` entries are there.
 *
 * Takes `to_submit` elements of the submission ring (fewer where the completion
 * ring has no room for their entries); makes `nr_changes` changes
 * as KEVENT_CONTROL does; tests level interests whose entry has been read;
 * waits; copies up to `max` entries out, oldest first, which moves cq_head.
 *
 * Returns the number of entries copied or, with `entries` 0, of those unread
 * (at most INT_MAX). What was submitted and changed is told in the struct, also
 * on failure. EINTR if a signal came before anything was there; not if it only
 * looks, with `sigmask` and one of `min` and `timeout_ns` 0. A timeout is no error.
 * EFAULT if entries could not be copied: those stay unread. It does not sleep on
 * when an operation that it ended was the last to hold a file: that one ends, and a
 * FIN goes out, when the call returns, with fewer entries perhaps.
 */
struct kevent_enter {
	__u32	size;
	__u32	flags;
	__u32	to_submit;
	__u32	submitted;	/* out */
	__u64	changes;	/* struct kevent_sqe[nr_changes] */
	__u32	nr_changes;
	__u32	changed;	/* out */
	__u64	entries;	/* struct kevent_entry[max], or 0: they stay in the ring */
	__u32	max;
	__u32	min;		/* 0 does not wait; at most cq_entries */
	__s64	timeout_ns;	/* negative: none */
	__s64	min_wait_ns;	/* when it has passed one entry is enough; negative: off */
	__u32	clock;		/* CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME */
	__u32	sigmask_size;	/* bytes, 8 */
	__u64	sigmask;	/* sigset_t for the wait as of ppoll(2), or 0 */
	__u64	reserved[2];
};
#define KEVENT_ENTER_SIZE_V1	96

/*
 * The buffers of a pool that the kernel may use. The user writes the ids of free
 * ones to id[tail & (buffers - 1)] and then, with release semantics, tail. The
 * kernel takes them in that order.
 */
struct kevent_pool_ring {
	__u32	tail;
	__u32	reserved;
	__u16	id[];		/* as many as the pool has buffers */
};

/*
 * KEVENT_REGISTER, for KEVENT_FEATURE_NAIO; ENOTTY without.
 *
 * KEVENT_REGISTER_POOL pins nothing: a pool is ordinary memory, which is written by
 * the opener's threads, or (where its pages are there) by a worker on their behalf,
 * when data has come.
 *
 * KEVENT_REGISTER_PINNED_POOL, for KEVENT_FEATURE_PINNED_POOLS, pins the pages of
 * the buffers and of the pool's ring. What arrives on a connection of TCP (IPv4,
 * IPv6; neither kTLS nor a BPF map) for a recv from such a pool is copied, and its
 * entry made, by the arrival itself: no thread has to be in KEVENT_ENTER, and none
 * is woken before there are as many entries as it waits for. If just then a thread is
 * in a call on that socket, no buffer is free, the completion ring is full, or there
 * is urgent data, an error or the stream's end, it is received as with any pool.
 * A recv that is not multishot keeps its socket until the next KEVENT_ENTER, or a
 * few milliseconds, after such an entry (KEVENT_RING_PENDING); what waits behind it
 * begins then.
 * The pages are charged to the user's RLIMIT_MEMLOCK, all processes together, as
 * those of io_uring are, unless he has CAP_IPC_LOCK: each page of the buffers and of
 * the ring that is touched at all; ENOMEM above the limit. They are anonymous or
 * shared memory (tmpfs, memfd); EOPNOTSUPP of other files. EINVAL above
 * KEVENT_MAX_PINNED bytes of buffers. They stay pinned until KEVENT_UNREGISTER or,
 * the same without asking, when the operations of the queue end with its opener. What
 * is mapped in their place meanwhile is not the pool; a child of fork(2) gets copies.
 */
struct kevent_register {
	__u32	size;
	__u32	opcode;		/* enum kevent_register_opcode */
	__u64	address;	/* of a pool: its buffers, one behind the other */
	__u64	bytes;		/* a power of two, at most KEVENT_MAX_BUFFERS, of buffers */
	__u32	buffer_bytes;	/* size of one */
	__u32	id;		/* out: of the pool; in to unregister */
	__u64	ring;		/* address of the pool's struct kevent_pool_ring */
	__u64	reserved[2];
};
#define KEVENT_REGISTER_SIZE_V1	56
#define KEVENT_MAX_BUFFERS	32768
#define KEVENT_MAX_POOLS	64	/* of one queue; ENOSPC */
#define KEVENT_MAX_PINNED	(1u << 30) /* bytes of one pool's buffers */

enum kevent_register_opcode {
	KEVENT_REGISTER_POOL	= 2,	/* buffers for recv to choose from */
	KEVENT_UNREGISTER	= 3,	/* EBUSY while operations use it */
	KEVENT_REGISTER_PINNED_POOL = 4, /* the same, of memory that is pinned */
};

/*
 * The size is not part of the numbers: structs grow, calls keep their name.
 */
#define KEVENT_SETUP		_IO(KEVENT_IOC_MAGIC, 0)
#define KEVENT_CONTROL		_IO(KEVENT_IOC_MAGIC, 1)
#define KEVENT_ENTER		_IO(KEVENT_IOC_MAGIC, 2)
#define KEVENT_REGISTER		_IO(KEVENT_IOC_MAGIC, 3)

#endif /* _UAPI_KEVENT_H */
