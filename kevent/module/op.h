/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files that take, try and end operations share among themselves. */
#ifndef _KEVENT_OP_H
#define _KEVENT_OP_H

#include "core.h"

/* kevent_op.state */
enum {
	KEVENT_OP_QUEUED,	/* behind another one of its socket */
	KEVENT_OP_BLOCKED,	/* linked to one that has not ended */
	KEVENT_OP_RUNNING,
	KEVENT_OP_PARKED,	/* waits for its socket, or a read */
	KEVENT_OP_WAITING,	/* on one of the lists of its user */
	KEVENT_OP_STARVED,	/* on the list of its pool */
	KEVENT_OP_ARRIVED,	/* on user->arrived */
	KEVENT_OP_COPYING,	/* in the hands of the tasklet */
	KEVENT_OP_ENDED,
};

extern struct kmem_cache *kevent_op_cache;

static inline bool kevent_op_sends(const struct kevent_op *op)
{
	return op->opcode != KEVENT_OP_ACCEPT && op->opcode != KEVENT_OP_RECV;
}

/* op.c */
struct list_head *kevent_op_lane(const struct kevent_op *op);
struct kevent_op *kevent_lane_first(const struct kevent_user *u,
				    const struct inode *inode, bool sends);
void kevent_op_run(struct kevent_op *op);
unsigned int kevent_op_finish(struct kevent_op *op, s64 result);

/* submit.c */
bool kevent_op_valid(const struct kevent_sqe *s);

/*
 * recv.c, send.c. One try. Context: as kevent_op_run(). They return KEVENT_WAITS,
 * -EAGAIN to wait for the socket, or the result.
 */
bool kevent_is_plain_tcp(struct sock *sk);
bool kevent_is_drained(struct sock *sk);
s64 kevent_try_recv(struct kevent_op *op, struct socket *sock);
s64 kevent_try_send(struct kevent_op *op, struct socket *sock);
s64 kevent_try_connect(struct kevent_op *op, struct socket *sock);

/* softirq.c */
bool kevent_copy_soon(struct kevent_op *op);

#endif /* _KEVENT_OP_H */
