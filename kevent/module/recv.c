// SPDX-License-Identifier: GPL-2.0-only
/* KEVENT_OP_RECV: into the buffer that it names, or one of a pool. */
#include <linux/net.h>
#include <linux/socket.h>
#include <linux/uio.h>
#include <net/inet_connection_sock.h>
#include <net/sock.h>

#include "compat.h"
#include "core.h"
#include "op.h"

/* A glance. */
bool kevent_is_plain_tcp(struct sock *sk)
{
	/* Not with a record layer or a BPF map: those have queues of their own. */
	return sk->sk_protocol == IPPROTO_TCP && sk->sk_type == SOCK_STREAM &&
	       (sk->sk_family == AF_INET || sk->sk_family == AF_INET6) &&
	       !inet_csk_has_ulp(sk) &&
	       !READ_ONCE(sk->sk_user_data);
}

/* Is there nothing to be read, for sure? A glance. */
bool kevent_is_drained(struct sock *sk)
{
	return kevent_is_plain_tcp(sk) &&
	       skb_queue_empty_lockless(&sk->sk_receive_queue) &&
	       READ_ONCE(sk->sk_state) == TCP_ESTABLISHED &&
	       !(READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN) &&
	       !READ_ONCE(sk->sk_err);
}

static int kevent_recv_some(struct socket *sock, u64 address, u64 bytes)
{
	struct msghdr msg = {};
	struct iovec iov;
	int r;

	r = kevent_import(ITER_DEST, u64_to_user_ptr(address), bytes, &iov,
			  &msg.msg_iter);
	if (r)
		return r;
	return sock_recvmsg(sock, &msg, MSG_DONTWAIT);
}

/* Into buffer `id`. Context: as kevent_op_run(). */
int kevent_recv_buffer(struct socket *sock, const struct kevent_pool *pool,
		       u16 id)
{
	struct msghdr msg = {};
	struct iovec iov;
	int r;

	r = kevent_pool_import(pool, id, &iov, &msg.msg_iter);
	if (r)
		return r;
	return sock_recvmsg(sock, &msg, MSG_DONTWAIT);
}

/*
 * Leaves it until somebody gives a buffer back, and those that have waited longer
 * have theirs; if softirq was quicker (`lost`), it has. Context: as kevent_op_run().
 */
static s64 kevent_op_starve(struct kevent_op *op, bool lost)
{
	struct kevent_user *u = op->user;

	spin_lock_irq(&u->lock);
	kevent_pool_ungrant(op);
	op->state = KEVENT_OP_STARVED;
	if (lost)
		list_add(&op->run, &op->pool->starved);
	else
		list_add_tail(&op->run, &op->pool->starved);
	WRITE_ONCE(u->starving, u->starving + 1);
	kevent_set_flag(u, KEVENT_RING_STARVED);
	spin_unlock_irq(&u->lock);
	/* Whoever gives one looks at the flag afterwards. */
	smp_mb();
	kevent_pool_grant(u, op->pool);
	return KEVENT_WAITS;
}

/*
 * A buffer, if there is one that nobody has waited longer for.
 * Context: as kevent_op_run().
 */
static int kevent_op_take_buffer(struct kevent_op *op, u16 *id)
{
	struct kevent_user *u = op->user;
	int r;

	if (!op->granted && kevent_pool_awaited(op->pool))
		return -ENOBUFS;
	r = kevent_pool_take(u, op->pool, id);
	if (op->granted) {
		spin_lock_irq(&u->lock);
		kevent_pool_ungrant(op);
		spin_unlock_irq(&u->lock);
	}
	return r;
}

static s64 kevent_try_recv_pool(struct kevent_op *op, struct socket *sock)
{
	const bool multishot = op->flags & KEVENT_MULTISHOT;
	struct kevent_pool *pool = op->pool;
	struct kevent_user *u = op->user;
	unsigned int turn;

	for (turn = 0; turn < KEVENT_TURN; turn++) {
		const bool granted = op->granted;
		u16 id;
		int r;

		r = kevent_op_take_buffer(op, &id);
		if (r == -ENOBUFS)
			return kevent_op_starve(op, granted);
		if (r)
			return r;
		/* What is taken from the socket must find its place. */
		if (multishot && !kevent_reserve(u)) {
			kevent_pool_give_back(u, pool, id);
			return kevent_op_stall(op, turn);
		}
		r = kevent_recv_buffer(sock, pool, id);
		if (r <= 0) {
			kevent_pool_give_back(u, pool, id);
			if (multishot)
				kevent_unreserve(u);
			return r;
		}
		op->data[0] = id;
		op->entry_flags = KEVENT_ENTRY_BUFFER;
		if (!multishot)
			return r;
		op->done = r;
		kevent_show_reserved(u, op);
		op->data[0] = 0;
		op->entry_flags = 0;
		if (r < pool->buffer_bytes && kevent_is_drained(sock->sk))
			return -EAGAIN;
	}
	return kevent_op_yield(op);
}

s64 kevent_try_recv(struct kevent_op *op, struct socket *sock)
{
	if (op->events & KEVENT_RECV_WAIT && !op->hooked)
		return -EAGAIN;
	if (!op->hooked && kevent_is_drained(sock->sk))
		return -EAGAIN;
	if (op->pool)
		return kevent_try_recv_pool(op, sock);
	return kevent_recv_some(sock, op->address, op->bytes);
}
