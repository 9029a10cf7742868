// SPDX-License-Identifier: Apache-2.0
/*
 * Waits for a connection, a timer and changes of a file at once, by the
 * interface of the kernel module alone: no library but libc. kevent/uapi/kevent.h
 * is the manual of what is used here.
 *
 *	cc -I. -o raw_abi docs/examples/raw_abi.c && ./raw_abi FILE
 *
 * listens on a free port of 127.0.0.1, prints it, and then what happens: who
 * connects, each second, and what is done to FILE. It ends when FILE is removed.
 */
#define _GNU_SOURCE /* accept4, O_PATH */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "kevent/uapi/kevent.h"

/* What comes back in the entries: which of the three it was. */
enum { LISTENER = 1, TIMER = 2, FILE_CHANGED = 3 };

static void die(const char *what)
{
	fprintf(stderr, "raw_abi: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* A socket that listens on a free port of this machine, which is printed. */
static int listen_somewhere(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) ||
	    listen(fd, 16) ||
	    getsockname(fd, (struct sockaddr *)&address, &length))
		die("listening");
	printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
	return fd;
}

/*
 * Takes the oldest unread entry out of the ring; 0 if there is none. This is no
 * system call: the kernel has put the entry there when it happened.
 */
static int take(struct kevent_ring *ring, struct kevent_entry *entry)
{
	const struct kevent_entry *entries =
		(const void *)((const char *)ring + ring->cq_offset);
	uint32_t head = ring->cq_head; /* nobody else writes it */

	/* Acquire: the entry's words are read after the tail that shows it. */
	if (head == __atomic_load_n(&ring->cq_tail, __ATOMIC_ACQUIRE))
		return 0;
	*entry = entries[head & (ring->cq_entries - 1)];
	/* Release: from here on the kernel may use the slot again. */
	__atomic_store_n(&ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return 1;
}

static void accept_all(int listener)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			return; /* no more of them */
		printf("a connection\n");
		if (dprintf(fd, "hello\n") < 0)
			perror("raw_abi: sending");
		close(fd);
	}
}

/* Says what an entry tells. Returns 0 if that was the end of the file. */
static int handle(const struct kevent_entry *entry, int listener)
{
	switch (entry->user_data) {
	case LISTENER:
		accept_all(listener);
		break;
	case TIMER:
		printf("%llu s passed\n", (unsigned long long)entry->data[0]);
		break;
	case FILE_CHANGED:
		if (entry->events & KEVENT_INODE_MODIFY)
			printf("the file was written to\n");
		if (entry->events & KEVENT_INODE_ATTRIB)
			printf("the file's attributes were changed\n");
		/* The last link is gone, and whoever had it open. */
		if (entry->flags & KEVENT_ENTRY_BROKEN) {
			printf("the file is gone\n");
			return 0;
		}
		break;
	}
	return 1;
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: raw_abi FILE\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	int listener = listen_somewhere();
	int file = open(argv[1], O_PATH | O_CLOEXEC);

	if (file < 0)
		die(argv[1]);

	/* A queue and its rings, which both sides see. */
	int queue = open("/dev/kevent", O_RDWR | O_CLOEXEC);

	if (queue < 0)
		die("/dev/kevent");
	/* Zero takes the kernel's default; it fills in what that is. */
	struct kevent_setup setup = {
		.size = sizeof(setup),
		.abi_version = KEVENT_ABI_VERSION,
	};
	if (ioctl(queue, KEVENT_SETUP, &setup))
		die("KEVENT_SETUP");
	struct kevent_ring *ring = mmap(NULL, setup.ring_bytes,
					PROT_READ | PROT_WRITE, MAP_SHARED,
					queue, 0);
	if (ring == MAP_FAILED)
		die("mapping the rings");

	/*
	 * Three interests in one call. Something may be ready already: with
	 * KEVENT_ALWAYS_QUEUE that is told by an entry, as everything later.
	 */
	struct kevent_sqe add[] = {
		{
			.opcode = KEVENT_OP_ADD,
			.source = KEVENT_SOURCE_SOCKET,
			.flags = KEVENT_ALWAYS_QUEUE,
			.fd = listener,
			.user_data = LISTENER,
			.events = KEVENT_SOCKET_ACCEPT,
		},
		{
			.opcode = KEVENT_OP_ADD,
			.source = KEVENT_SOURCE_TIMER,
			.fd = CLOCK_MONOTONIC,
			.user_data = TIMER,
			/* In a second, and each second from then on. */
			.arg = { 1000000000, 1000000000 },
		},
		{
			.opcode = KEVENT_OP_ADD,
			.source = KEVENT_SOURCE_INODE,
			.fd = file,
			.user_data = FILE_CHANGED,
			.events = KEVENT_INODE_MODIFY | KEVENT_INODE_ATTRIB,
		},
	};
	const uint32_t count = sizeof(add) / sizeof(add[0]);
	struct kevent_control control = {
		.size = sizeof(control),
		.count = count,
		.changes = (uintptr_t)add,
	};
	/* The number of changes made; each has a result of its own. */
	if (ioctl(queue, KEVENT_CONTROL, &control) != (int)count)
		die("KEVENT_CONTROL");
	for (uint32_t i = 0; i < count; i++) {
		if (add[i].result < 0) {
			errno = -add[i].result;
			die("adding an interest");
		}
	}
	/* The interest is in the file, not in the descriptor. */
	close(file);

	for (;;) {
		struct kevent_entry entry;

		while (take(ring, &entry)) {
			if (!handle(&entry, listener))
				return 0;
		}
		/*
		 * The ring is empty: sleep until it is not. The call also tests
		 * the listener again if its entry has been read, so that no
		 * connection is overlooked.
		 */
		struct kevent_enter enter = {
			.size = sizeof(enter),
			.min = 1,
			.timeout_ns = -1,
			.min_wait_ns = -1,
			.clock = CLOCK_MONOTONIC,
		};
		if (ioctl(queue, KEVENT_ENTER, &enter) < 0 && errno != EINTR)
			die("KEVENT_ENTER");
	}
}
