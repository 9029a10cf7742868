// SPDX-License-Identifier: GPL-2.0-only
/* KEVENT_OP_ACCEPT: connections, their descriptors, and their first bytes. */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/net.h>
#include <net/inet_connection_sock.h>
#include <net/sock.h>
#include <net/tcp_states.h>

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

/*
 * What the connection has received goes into a buffer of the pool. If there is none,
 * or others wait for it, or it cannot be written, the bytes stay for recv, and so does
 * an error, which is not asked for while there are none. Context: as kevent_op_run().
 */
static void kevent_accept_bytes(struct kevent_op *op, struct socket *sock)
{
	u16 id;
	int r;

	if (skb_queue_empty_lockless(&sock->sk->sk_receive_queue) ||
	    kevent_pool_awaited(op->pool) ||
	    kevent_pool_take(op->user, op->pool, &id))
		return;
	r = kevent_recv_buffer(sock, op->pool, id);
	if (r <= 0) {
		kevent_pool_give_back(op->user, op->pool, id);
		return;
	}
	op->data[0] = id;
	op->data[1] = r;
	op->entry_flags = KEVENT_ENTRY_BUFFER;
}

/*
 * kernel_accept() makes a socket before it finds that there is no connection. One that
 * comes after this look wakes the operation, as after that call. MPTCP keeps them
 * elsewhere.
 */
static bool kevent_none_waits(const struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_TCP &&
	       inet_sk_state_load(sk) == TCP_LISTEN && !inet_csk_listen_poll(sk);
}

static int kevent_accept_one(struct kevent_op *op, struct socket *listener)
{
	const int flags = op->address;
	struct socket *sock;
	struct file *file;
	int fd, r;

	if (kevent_none_waits(listener->sk))
		return -EAGAIN;
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
	/* Before anybody else can receive them. */
	if (op->pool)
		kevent_accept_bytes(op, sock);
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
			return kevent_op_stall(op, turn);
		r = kevent_accept_one(op, sock);
		if (multishot && r >= 0) {
			op->done = r;
			kevent_show_reserved(u, op);
			op->data[0] = 0;
			op->data[1] = 0;
			op->entry_flags = 0;
			continue;
		}
		if (multishot)
			kevent_unreserve(u);
		if (!kevent_died_early(r))
			return r;
	}
	return kevent_op_yield(op);
}
