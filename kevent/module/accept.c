// SPDX-License-Identifier: GPL-2.0-only
/* KEVENT_OP_ACCEPT: connections and their descriptors. */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/net.h>
#include <net/sock.h>

#include "core.h"

/*
 * kernel_accept() makes connections as the kernel's own: those of some protocols
 * would not hold their network namespace. These make them before.
 */
bool kevent_may_accept(const struct kevent_op *op)
{
	const struct sock *sk;

	if (!op->file)
		return true;
	sk = sock_from_file(op->file)->sk;
	return (sk->sk_family == AF_INET || sk->sk_family == AF_INET6) &&
	       (sk->sk_protocol == IPPROTO_TCP ||
		sk->sk_protocol == IPPROTO_MPTCP);
}

/* Errors of connections that died in the backlog, see accept(2). */
static bool kevent_died_early(int error)
{
	switch (-error) {
	case ECONNABORTED:
	case ENETDOWN:
	case EPROTO:
	case ENOPROTOOPT:
	case EHOSTDOWN:
	case ENONET:
	case EHOSTUNREACH:
	case ENETUNREACH:
		return true;
	}
	return false;
}

static int kevent_accept_one(struct socket *listener, int flags)
{
	struct socket *sock;
	struct file *file;
	int fd, r;

	/* First: without one the connection is not to be taken. */
	fd = get_unused_fd_flags(flags & O_CLOEXEC);
	if (fd < 0)
		return fd;
	r = kernel_accept(listener, &sock, O_NONBLOCK);
	if (r < 0) {
		put_unused_fd(fd);
		return r;
	}
	file = sock_alloc_file(sock, flags, NULL);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return PTR_ERR(file);
	}
	fd_install(fd, file);
	return fd;
}

/* Context: as kevent_op_run(). */
s64 kevent_try_accept(struct kevent_op *op, struct socket *sock)
{
	const bool multishot = op->flags & KEVENT_MULTISHOT;
	struct kevent_user *u = op->user;
	unsigned int turn;

	for (turn = 0; turn < KEVENT_TURN; turn++) {
		int r;

		if (multishot && !kevent_reserve(u))
			return kevent_op_leave(op, &u->stalled);
		r = kevent_accept_one(sock, op->address);
		if (multishot && r >= 0) {
			op->done = r;
			kevent_show_reserved(u, op);
			continue;
		}
		if (multishot)
			kevent_unreserve(u);
		if (!kevent_died_early(r))
			return r;
	}
	return kevent_op_yield(op);
}
