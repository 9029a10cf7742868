// SPDX-License-Identifier: GPL-2.0-only
/*
 * KEVENT_OP_RECV into a pinned pool: what arrives is copied without any process.
 *
 * The wait queue's callback runs in the middle of TCP's receive path, under the
 * socket's spinlock: it cannot read there. It puts the operation on
 * user->arrived and leaves it to a tasklet, which runs on that very processor
 * right after it, takes the socket's spinlock, and, if no process owns the socket,
 * reads as splice(2) and kTLS do: tcp_read_sock(), which opens the window as well.
 * Whatever is not plain data of an established connection that finds a buffer and
 * room in the ring is not its business: then the operation becomes runnable,
 * as any other one that has been woken, and recvmsg(2)'s own code looks at it.
 *
 * One tasklet for each queue, so that two processors do not copy for one queue at
 * the same time, as they could not write its ring at the same time.
 *
 * kevent_op.state tells whose it is:
 *
 *	PARKED --callback--> ARRIVED --tasklet--> COPYING --+--> PARKED: all read
 *	   (user->lock)		 ^			    +--> WAITING, on
 *				 +-- it has had its turn ---+    user->runnable
 *
 * On user->runnable it is for a process to try it or, if its last entry is in the
 * ring (kevent_op.told), to let go of what it holds: that takes the mutex.
 *
 * Who ends an operation takes user->copy_lock: while he has it the tasklet has
 * none in its hands, and afterwards none that is ENDED. So the tasklet needs no
 * reference: to the operation, which is there until it is ended; to the socket,
 * whose file the operation holds; to the pool, which the operation uses; to the
 * queue, whose release ends all operations, and then waits for the tasklet.
 *
 * Locks, outermost first: user->copy_lock, the socket's, user->lock. All of them
 * are taken in softirq: elsewhere with bottom halves off.
 *
 * The security module's hook for receiving has no meaning without a process, and is
 * not asked here.
 */
#include <linux/interrupt.h>
#include <linux/skbuff.h>
#include <linux/tcp.h>
#include <linux/uio.h>
#include <linux/workqueue.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "core.h"
#include "op.h"

/* Bytes of one piece, and pieces of one run of the tasklet, of one operation. */
#define KEVENT_COPY_BYTES	(256u << 10)
#define KEVENT_COPY_PIECES	64

/* What a run of the tasklet has brought about. */
struct kevent_copied {
	unsigned int pieces;
	bool entries;		/* in the ring */
	bool runnable;		/* something for a process to do */
	bool looked;		/* others may have missed what was in our hands */
};

/*
 * Data has arrived for a parked operation. Leaves it to the tasklet; false if that
 * is not possible. Context: any; the lock of the socket's wait queue held.
 */
bool kevent_copy_soon(struct kevent_op *op)
{
	struct kevent_user *u = op->user;
	unsigned long flags;
	bool soon;

	/*
	 * Then it is its owner's call that tells, on his way out. He may do so
	 * often: for others there is a way that waits for him.
	 */
	if (sock_owned_by_user_nocheck(op->sk))
		return false;
	spin_lock_irqsave(&u->lock, flags);
	soon = op->state == KEVENT_OP_PARKED;
	if (soon) {
		op->state = KEVENT_OP_ARRIVED;
		list_add_tail(&op->run, &u->arrived);
	}
	spin_unlock_irqrestore(&u->lock, flags);
	if (soon)
		tasklet_schedule(&u->copy_tasklet);
	return soon;
}

/*
 * Is there nothing but data to be had from the socket?
 * Context: softirq, the socket's spinlock held.
 */
static bool kevent_may_copy(struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	return !sock_owned_by_user(sk) && kevent_is_plain_tcp(sk) &&
	       1 << sk->sk_state &
		       (TCPF_ESTABLISHED | TCPF_FIN_WAIT1 | TCPF_FIN_WAIT2) &&
	       !(sk->sk_shutdown & RCV_SHUTDOWN) && !sk->sk_err &&
	       !tp->urg_data && !tp->repair;
}

/* Context: the same. */
static int kevent_copy_actor(read_descriptor_t *d, struct sk_buff *skb,
			     unsigned int offset, size_t bytes)
{
	const size_t n = min(bytes, d->count);

	/* Memory of a device, say: recvmsg() knows what to say to that. */
	if (n && skb_copy_datagram_iter(skb, offset, d->arg.data, n))
		return 0;
	d->count -= n;
	return n;
}

/* Bytes copied into buffer `id`, or none. Context: the same. */
static int kevent_copy_piece(struct kevent_op *op, u16 id)
{
	struct iov_iter iter;
	read_descriptor_t d = {
		.arg.data = &iter,
		.count = min(op->pool->buffer_bytes, KEVENT_COPY_BYTES),
	};

	kevent_pool_import(op->pool, id, NULL, &iter);
	return tcp_read_sock(op->sk, &d, kevent_copy_actor);
}

/*
 * Keeps room for an entry, and a buffer, that nobody waits for.
 * Context: softirq, u->lock held.
 */
static bool kevent_copy_prepare(struct kevent_op *op, u16 *id)
{
	struct kevent_user *u = op->user;

	if (!list_empty(&u->stalled) || kevent_pool_awaited(op->pool) ||
	    !kevent_reserve_room(u))
		return false;
	if (!kevent_pool_pop(op->pool, id))
		return true;
	kevent_leave_room(u);
	return false;
}

/*
 * What has become of a piece: `n` bytes, or none. Says where the operation belongs
 * now, KEVENT_OP_COPYING if it is to go on.
 * Context: softirq; the socket's spinlock and u->lock held.
 */
static u8 kevent_copy_account(struct kevent_op *op, u16 id, int n,
			      struct kevent_copied *copied)
{
	struct kevent_user *u = op->user;
	struct sock *sk = op->sk;
	const bool multishot = op->flags & KEVENT_MULTISHOT;

	if (n > 0) {
		op->done = n;
		op->data[0] = id;
		op->entry_flags = KEVENT_ENTRY_BUFFER;
		kevent_fill_room(u, op, multishot);
		u->copied_pieces++;
		copied->entries = true;
		if (!multishot) {
			op->told = true;
			return KEVENT_OP_WAITING;
		}
		op->data[0] = 0;
		op->entry_flags = 0;
	} else {
		kevent_pool_push(op->pool, id);
		kevent_leave_room(u);
		copied->looked = true;
	}
	if (!kevent_may_copy(sk) || op->again)
		return KEVENT_OP_WAITING;
	if (skb_queue_empty(&sk->sk_receive_queue))
		return KEVENT_OP_PARKED;
	return n > 0 ? KEVENT_OP_COPYING : KEVENT_OP_WAITING;
}

/*
 * Copies for the first of those that wait for it; false if there is none.
 * Context: softirq, u->copy_lock held.
 */
static bool kevent_copy_next(struct kevent_user *u,
			     struct kevent_copied *copied)
{
	struct kevent_op *op;
	unsigned int turn = 0;
	u8 state;
	bool go;
	u16 id;

	spin_lock_irq(&u->lock);
	op = list_first_entry_or_null(&u->arrived, struct kevent_op, run);
	if (!op) {
		spin_unlock_irq(&u->lock);
		return false;
	}
	list_del_init(&op->run);
	op->state = KEVENT_OP_COPYING;
	op->again = false;
	go = kevent_copy_prepare(op, &id);
	spin_unlock_irq(&u->lock);

	bh_lock_sock(op->sk);
	do {
		const int n = go && kevent_may_copy(op->sk) ?
				      kevent_copy_piece(op, id) : 0;

		copied->pieces++;
		spin_lock_irq(&u->lock);
		state = go ? kevent_copy_account(op, id, n, copied) :
			     KEVENT_OP_WAITING;
		if (state == KEVENT_OP_COPYING && ++turn == KEVENT_TURN)
			state = KEVENT_OP_ARRIVED;
		else if (state == KEVENT_OP_COPYING)
			go = kevent_copy_prepare(op, &id);
		if (state == KEVENT_OP_COPYING && !go)
			state = KEVENT_OP_WAITING;
		/* What comes from here on the callback hears of. */
		op->state = state;
		if (state == KEVENT_OP_ARRIVED) {
			list_add_tail(&op->run, &u->arrived);
		} else if (state == KEVENT_OP_WAITING) {
			list_add_tail(&op->run, &u->runnable);
			kevent_set_flag(u, KEVENT_RING_PENDING);
			copied->runnable = true;
		}
		spin_unlock_irq(&u->lock);
	} while (state == KEVENT_OP_COPYING);
	bh_unlock_sock(op->sk);
	return true;
}

/* Context: softirq. */
static void kevent_copy_run(struct tasklet_struct *tasklet)
{
	struct kevent_user *u =
		container_of(tasklet, struct kevent_user, copy_tasklet);
	struct kevent_copied copied = {};
	bool more;

	do {
		/* Who ends an operation waits no longer than for one of them. */
		spin_lock(&u->copy_lock);
		more = kevent_copy_next(u, &copied);
		spin_unlock(&u->copy_lock);
	} while (more && copied.pieces < KEVENT_COPY_PIECES);
	if (more)
		tasklet_schedule(tasklet);
	if (copied.looked) {
		spin_lock_irq(&u->lock);
		copied.looked = u->starving || !list_empty(&u->stalled);
		if (copied.looked)
			WRITE_ONCE(u->news, u->news + 1);
		spin_unlock_irq(&u->lock);
	}
	/* Once for all of them: this is what saves wake-ups. */
	if (!copied.entries && !copied.runnable && !copied.looked)
		return;
	if (!kevent_wake(u, copied.looked) &&
	    (copied.runnable || copied.looked))
		kevent_work_queue(&u->run_work, 1);
}

void kevent_copy_init(struct kevent_user *u)
{
	spin_lock_init(&u->copy_lock);
	INIT_LIST_HEAD(&u->arrived);
	tasklet_setup(&u->copy_tasklet, kevent_copy_run);
}

/*
 * Nothing runs when it returns. Context: process; there are no operations any more.
 */
void kevent_copy_exit(struct kevent_user *u)
{
	tasklet_kill(&u->copy_tasklet);
}
