// SPDX-License-Identifier: GPL-2.0-only
/*
 * Network AIO: operations on sockets that complete by an entry.
 *
 * An operation is tried when it is submitted and, each time its socket's wait
 * queue says that it is ready, by the next KEVENT_ENTER: there the memory that it
 * names is at hand, nothing has to be pinned and nobody woken. If nobody is in
 * KEVENT_ENTER a worker that borrows the opener's memory does it a little later.
 * What waits for its socket costs no thread.
 *
 * All of it happens under user->mutex. Callbacks of wait queues put operations on
 * user->runnable and touch nothing else.
 */
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/kthread.h>
#include <linux/log2.h>
#include <linux/net.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/socket.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <net/inet_connection_sock.h>
#include <net/sock.h>

#include "compat.h"
#include "core.h"

/* kevent_op.state */
enum {
	KEVENT_OP_QUEUED,	/* behind another one of its socket */
	KEVENT_OP_BLOCKED,	/* linked to one that has not ended */
	KEVENT_OP_RUNNING,
	KEVENT_OP_PARKED,	/* waits for its socket, or a read */
	KEVENT_OP_WAITING,	/* on one of the lists of its user */
	KEVENT_OP_ENDED,
};

static struct kmem_cache *kevent_op_cache;

static bool kevent_op_sends(const struct kevent_op *op)
{
	return op->opcode != KEVENT_OP_ACCEPT && op->opcode != KEVENT_OP_RECV;
}

/* ---- Waiting for the socket ---- */

/*
 * The socket is ready, or a read has ended: `op` is to be tried.
 * Context: any, hard interrupts included; locks of the source held.
 */
void kevent_op_wake(struct kevent_op *op)
{
	struct kevent_user *u = op->user;
	unsigned long flags;
	bool news = false;

	spin_lock_irqsave(&u->lock, flags);
	if (op->state == KEVENT_OP_PARKED) {
		op->state = KEVENT_OP_WAITING;
		list_add_tail(&op->run, &u->runnable);
		kevent_set_flag(u, KEVENT_RING_PENDING);
		news = true;
	} else if (op->state == KEVENT_OP_RUNNING) {
		op->again = true;
	}
	spin_unlock_irqrestore(&u->lock, flags);
	/* If somebody waits he looks to it that it is run. */
	if (news && !kevent_wake(u, false))
		queue_delayed_work(kevent_workqueue, &u->run_work, 1);
}

/* Context: any; the lock of the wait queue held. */
static int kevent_op_woken(wait_queue_entry_t *wait, unsigned int mode,
			   int sync, void *key)
{
	struct kevent_op *op = container_of(wait, struct kevent_op, hook.wait);
	const u32 mask = (__force u32)key_to_poll(key);

	if (mask && !(mask & op->wanted))
		return 0;
	kevent_op_wake(op);
	return 1;
}

static bool kevent_is_plain_tcp(struct sock *sk)
{
	/* Not with a record layer or a BPF map: those have queues of their own. */
	return sk->sk_protocol == IPPROTO_TCP && sk->sk_type == SOCK_STREAM &&
	       (sk->sk_family == AF_INET || sk->sk_family == AF_INET6) &&
	       !inet_csk_has_ulp(sk) &&
	       !READ_ONCE(sk->sk_user_data);
}

/* Is there nothing to be read, for sure? A glance. */
static bool kevent_is_drained(struct sock *sk)
{
	return kevent_is_plain_tcp(sk) &&
	       skb_queue_empty_lockless(&sk->sk_receive_queue) &&
	       READ_ONCE(sk->sk_state) == TCP_ESTABLISHED &&
	       !(READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN) &&
	       !READ_ONCE(sk->sk_err);
}

/*
 * Leaves `op` to a read that is under way; false if it has ended meanwhile.
 * Context: process, user->mutex held.
 */
bool kevent_op_sleep(struct kevent_op *op)
{
	struct kevent_user *u = op->user;
	bool asleep;

	spin_lock_irq(&u->lock);
	asleep = !op->again;
	op->again = false;
	if (asleep)
		op->state = KEVENT_OP_PARKED;
	spin_unlock_irq(&u->lock);
	return asleep;
}

/*
 * Leaves `op` to its socket; false if it has become ready since it was tried.
 * Context: process, user->mutex held.
 */
static bool kevent_op_park(struct kevent_op *op, struct socket *sock)
{
	struct kevent_user *u = op->user;
	const bool fresh = !op->hooked;
	bool parked;
	u32 mask;

	if (fresh) {
		op->hooked = true;
		kevent_hook_add(&op->hook, NULL, &sock->wq.wait,
				kevent_op_woken);
	}
	parked = kevent_op_sleep(op);
	if (!parked || !fresh)
		return parked;
	/* What happened between the try and the hook nobody has told. */
	smp_mb();
	if (op->opcode == KEVENT_OP_RECV && kevent_is_drained(sock->sk))
		return true;
	mask = (__force u32)READ_ONCE(sock->ops)->poll(sock->file, sock, NULL);
	if (!(mask & op->wanted))
		return true;
	spin_lock_irq(&u->lock);
	parked = op->state != KEVENT_OP_PARKED;
	if (!parked)
		op->state = KEVENT_OP_RUNNING;
	spin_unlock_irq(&u->lock);
	return parked;
}

static s64 kevent_op_put(struct kevent_op *op, struct list_head *list, bool news)
{
	struct kevent_user *u = op->user;

	spin_lock_irq(&u->lock);
	op->state = KEVENT_OP_WAITING;
	list_add_tail(&op->run, list);
	kevent_set_flag(u, list == &u->starved ? KEVENT_RING_STARVED :
						 KEVENT_RING_PENDING);
	if (news)
		WRITE_ONCE(u->news, u->news + 1);
	spin_unlock_irq(&u->lock);
	return KEVENT_WAITS;
}

/*
 * Leaves it to a thread that has made room, or given a buffer; perhaps it has by
 * now, and did not see this one. Context: process, user->mutex held.
 */
s64 kevent_op_leave(struct kevent_op *op, struct list_head *list)
{
	kevent_op_put(op, list, true);
	kevent_wake(op->user, true);
	return KEVENT_WAITS;
}

/* It has had its turn. Context: the same. */
s64 kevent_op_yield(struct kevent_op *op)
{
	return kevent_op_put(op, &op->user->runnable, false);
}

/* Its turn has come: whoever runs operations now runs it, too. Context: the same. */
static void kevent_op_take_turn(struct kevent_op *op)
{
	kevent_op_yield(op);
	op->user->fresh = true;
}

/* ---- Ending ---- */

/*
 * If nobody else holds the file it ends when this thread returns to its program:
 * whoever is about to sleep in KEVENT_ENTER looks at let_go.
 * Context: process, user->mutex held.
 */
static void kevent_op_fput(struct kevent_user *u, struct file *file)
{
	/* Without a descriptor nobody can take hold of it. */
	if (file_count(file) == 1)
		u->let_go++;
	fput(file);
}

/*
 * Lets go of everything but the object. After it no callback runs, and no link
 * leads to it. Context: process, user->mutex held.
 */
static void kevent_op_release(struct kevent_op *op)
{
	struct kevent_user *u = op->user;

	if (op->hooked)
		kevent_hook_remove(&op->hook);
	if (op->reads)
		kevent_read_detach(op);
	spin_lock_irq(&u->lock);
	op->state = KEVENT_OP_ENDED;
	list_del_init(&op->run);
	spin_unlock_irq(&u->lock);
	if (op->before)
		op->before->link = NULL;
	if (op->link)
		op->link->before = NULL;
	if (op->pool)
		op->pool->users--;
	if (op->source)
		fput(op->source);
	if (op->file)
		kevent_op_fput(u, op->file);
	else if (op->inode)
		iput(op->inode);
	put_cred(op->cred);
	list_del_init(&op->lane);
	WRITE_ONCE(u->ops, u->ops - 1);
}

/* The object, which was charged until now. Context: any. */
void kevent_op_free(struct kevent_op *op)
{
	kevent_account_uncharge(op->user->account);
	kmem_cache_free(kevent_op_cache, op);
}

static struct list_head *kevent_lane(const struct kevent_user *u,
				     const struct inode *inode, bool sends)
{
	return &u->lanes[hash_ptr(inode, ilog2(KEVENT_LANES)) ^ sends];
}

/* Those without a socket stand in a lane too, to be found, but in no order. */
static struct list_head *kevent_op_lane(const struct kevent_op *op)
{
	if (!op->inode)
		return &op->user->lanes[KEVENT_LANES];
	return kevent_lane(op->user, op->inode, kevent_op_sends(op));
}

/* The oldest of that socket and direction. */
static struct kevent_op *kevent_lane_first(const struct kevent_user *u,
					   const struct inode *inode,
					   bool sends)
{
	struct kevent_op *op;

	list_for_each_entry(op, kevent_lane(u, inode, sends), lane)
		if (op->inode == inode && kevent_op_sends(op) == sends)
			return op;
	return NULL;
}

/*
 * What it was linked to has ended, with its full length (`go`), or without: then it
 * ends as well. Both is left to kevent_ops_run(), as the chain may be long, and
 * those behind it on its socket have their turns. Context: as kevent_op_run().
 */
static void kevent_op_unblock(struct kevent_op *op, bool go)
{
	if (!go)
		op->error = -ECANCELED;
	op->state = KEVENT_OP_QUEUED;
	if (!op->inode || kevent_lane_first(op->user, op->inode,
					    kevent_op_sends(op)) == op)
		kevent_op_take_turn(op);
}

static void kevent_op_end(struct kevent_op *op, s64 result)
{
	struct kevent_user *u = op->user;
	struct kevent_op *link = op->link;
	const bool all = result >= 0 &&
			 (op->total < 0 || result == op->total);
	/* Of a pool's buffer any length is the full one, but for none. */
	const bool go = all && (result || op->opcode != KEVENT_OP_RECV ||
				!op->pool);

	kevent_op_release(op);
	op->done = result;
	if ((!all || !(op->flags & KEVENT_SKIP_SUCCESS)) &&
	    !kevent_show_last(u, op)) {
		/* It waits for room, and is not ours any more. */
	} else if (u->spares < 64) {
		kevent_account_uncharge(u->account);
		list_add(&op->run, &u->spare);
		u->spares++;
	} else {
		kevent_op_free(op);
	}
	if (link)
		kevent_op_unblock(link, go);
}

/*
 * Ends it, and lets the next of its lane run, or ends those behind it, too: returns
 * how many. Context: as kevent_op_run().
 */
static unsigned int kevent_op_finish(struct kevent_op *op, s64 result)
{
	struct kevent_user *u = op->user;
	const struct inode *inode = op->inode;
	const bool sends = kevent_op_sends(op);
	const bool pending = !list_empty(&op->lane);
	const bool cut = sends && result > 0 && op->total >= 0 &&
			 result != op->total;
	unsigned int others = 0;
	struct kevent_op *next;

	kevent_op_end(op, result);
	if (!pending || !inode)
		return 0;
	/* Those behind it hold the inode, if there are any. */
	while ((next = kevent_lane_first(u, inode, sends))) {
		if (!cut) {
			if (next->state == KEVENT_OP_QUEUED)
				kevent_op_take_turn(next);
			break;
		}
		kevent_op_end(next, -ECANCELED);
		others++;
		cond_resched();
	}
	return others;
}

/* ---- One try of each kind ---- */

/*
 * Context, of all of them: as kevent_op_run(). They return KEVENT_WAITS, -EAGAIN
 * to wait for the socket, or the result.
 */

int kevent_recv_some(struct socket *sock, u64 address, u64 bytes)
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

/* Leaves it until somebody gives a buffer back. Context: as kevent_op_run(). */
static s64 kevent_op_starve(struct kevent_op *op)
{
	struct kevent_user *u = op->user;
	u16 id;

	kevent_op_leave(op, &u->starved);
	/* Whoever gives one looks at the flag afterwards. */
	smp_mb();
	if (kevent_pool_peek(op->pool, &id) != -ENOBUFS) {
		spin_lock_irq(&u->lock);
		list_move_tail(&op->run, &u->runnable);
		kevent_set_flag(u, KEVENT_RING_PENDING);
		spin_unlock_irq(&u->lock);
	}
	return KEVENT_WAITS;
}

static s64 kevent_try_recv_pool(struct kevent_op *op, struct socket *sock)
{
	const bool multishot = op->flags & KEVENT_MULTISHOT;
	struct kevent_pool *pool = op->pool;
	struct kevent_user *u = op->user;
	unsigned int turn;

	for (turn = 0; turn < KEVENT_TURN; turn++) {
		u16 id = 0;
		int r;

		r = kevent_pool_peek(pool, &id);
		if (r == -ENOBUFS)
			return kevent_op_starve(op);
		if (r)
			return r;
		/* What is taken from the socket must find its place. */
		if (multishot && !kevent_reserve(u))
			return kevent_op_leave(op, &u->stalled);
		r = kevent_recv_some(sock,
				     pool->address + (u64)id * pool->buffer_bytes,
				     pool->buffer_bytes);
		if (r <= 0) {
			if (multishot)
				kevent_unreserve(u);
			return r;
		}
		pool->head++;
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

static s64 kevent_try_recv(struct kevent_op *op, struct socket *sock)
{
	if (op->events & KEVENT_RECV_WAIT && !op->hooked)
		return -EAGAIN;
	if (!op->hooked && kevent_is_drained(sock->sk))
		return -EAGAIN;
	if (op->pool)
		return kevent_try_recv_pool(op, sock);
	return kevent_recv_some(sock, op->address, op->bytes);
}

/* Sends from where `msg` stands until the socket is full. */
static s64 kevent_send_rest(struct kevent_op *op, struct socket *sock,
			    struct msghdr *msg)
{
	for (;;) {
		int r = sock_sendmsg(sock, msg);

		if (r < 0)
			return r;
		op->done += r;
		if (!msg_data_left(msg))
			return 0;
		if (!r || sock->type != SOCK_STREAM)
			return -EMSGSIZE;
	}
}

s64 kevent_send_bytes(struct kevent_op *op, struct socket *sock, u64 address,
		      u64 bytes, bool more)
{
	struct msghdr msg = {
		.msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0),
	};
	struct iovec iov;
	int r;

	r = kevent_import(ITER_SOURCE, u64_to_user_ptr(address), bytes, &iov,
			  &msg.msg_iter);
	if (r)
		return r;
	return kevent_send_rest(op, sock, &msg);
}

static s64 kevent_send_vector(struct kevent_op *op, struct socket *sock)
{
	const struct kevent_vector __user *from = u64_to_user_ptr(op->address);
	struct iovec fast[8], *iov = fast;
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	const u32 count = op->bytes;
	size_t total = 0;
	s64 r = -EFAULT;
	u32 i;

	static_assert(sizeof(struct kevent_vector) == sizeof(struct iovec));
	if (count > ARRAY_SIZE(fast)) {
		iov = kmalloc_array(count, sizeof(*iov), GFP_KERNEL_ACCOUNT);
		if (!iov)
			return -ENOMEM;
	}
	if (copy_from_user(iov, from, count * sizeof(*iov)))
		goto out;
	for (i = 0; i < count; i++) {
		if (!access_ok(iov[i].iov_base, iov[i].iov_len))
			goto out;
		if (iov[i].iov_len > MAX_RW_COUNT - total) {
			r = -EINVAL;
			goto out;
		}
		total += iov[i].iov_len;
	}
	r = -EINVAL;
	if (op->offset > total)
		goto out;
	/* Once something is out its length is fixed. */
	if (op->total < 0)
		op->total = total - op->offset;
	r = -EFAULT;
	if (op->total != total - op->offset)
		goto out;
	if (op->events & KEVENT_SEND_MORE)
		msg.msg_flags |= MSG_MORE;
	iov_iter_init(&msg.msg_iter, ITER_SOURCE, iov, count, total);
	iov_iter_advance(&msg.msg_iter, op->offset + op->done);
	r = kevent_send_rest(op, sock, &msg);
out:
	if (iov != fast)
		kfree(iov);
	return r;
}

static s64 kevent_try_send(struct kevent_op *op, struct socket *sock)
{
	s64 r;

	if (op->events & KEVENT_SEND_VECTOR)
		r = kevent_send_vector(op, sock);
	else
		r = kevent_send_bytes(op, sock, op->address + op->done,
				      op->bytes - op->done,
				      op->events & KEVENT_SEND_MORE);
	if (r == -EAGAIN)
		return r;
	return op->done || !r ? op->done : r;
}

static s64 kevent_try_connect(struct kevent_op *op, struct socket *sock)
{
	struct sockaddr_storage address;
	int r;

	if (op->done) {
		u32 mask = (__force u32)READ_ONCE(sock->ops)->poll(sock->file,
								   sock, NULL);

		if (!(mask & op->wanted))
			return -EAGAIN;
		return sock_error(sock->sk);
	}
	memset(&address, 0, sizeof(address));
	if (copy_from_user(&address, u64_to_user_ptr(op->address), op->bytes))
		return -EFAULT;
	r = kernel_connect(sock, (struct sockaddr *)&address, op->bytes,
			   O_NONBLOCK);
	if (r == -EAGAIN)
		/* A full backlog (Unix), or no port; neither is announced. */
		return KEVENT_AGAIN;
	if (r != -EINPROGRESS)
		return r;
	op->done = 1;
	return -EAGAIN;
}

static s64 kevent_op_try(struct kevent_op *op, struct socket *sock)
{
	switch (op->opcode) {
	case KEVENT_OP_ACCEPT:
		return kevent_try_accept(op, sock);
	case KEVENT_OP_CONNECT:
		return kevent_try_connect(op, sock);
	case KEVENT_OP_RECV:
		return kevent_try_recv(op, sock);
	case KEVENT_OP_SEND:
		return kevent_try_send(op, sock);
	case KEVENT_OP_SENDFILE:
	case KEVENT_OP_SENDFILE_PATH:
		return kevent_try_sendfile(op, sock);
	case KEVENT_OP_SHUTDOWN:
		return kernel_sock_shutdown(sock, op->address);
	}
	return -EINVAL;
}

/*
 * It may be a queue that is closed, or block: the mutex is dropped meanwhile. Nobody
 * finds `op` then. Context: process of the submitter, user->mutex held.
 */
static void kevent_op_close(struct kevent_op *op)
{
	struct kevent_user *u = op->user;
	/* To see whether it was the last descriptor. */
	struct file *file = fget_raw(op->address);
	int r;

	list_del_init(&op->lane);
	/* What could be run need not wait. */
	if (!list_empty(&u->runnable) && !kevent_wake(u, false))
		queue_delayed_work(kevent_workqueue, &u->run_work, 1);
	mutex_unlock(&u->mutex);
	r = close_fd(op->address);
	/* As close(2): it is closed, and cannot be closed again. */
	if (r == -ERESTARTSYS || r == -ERESTARTNOINTR ||
	    r == -ERESTARTNOHAND || r == -ERESTART_RESTARTBLOCK)
		r = -EINTR;
	mutex_lock(&u->mutex);
	if (file)
		kevent_op_fput(u, file);
	kevent_op_end(op, r);
}

/*
 * Tries it, KEVENT_OP_RUNNING, as often as there is something to gain.
 * Context: process with the opener's memory, user->mutex held, which is dropped
 * for a while if it is KEVENT_OP_CLOSE.
 */
static void kevent_op_run(struct kevent_op *op)
{
	struct kevent_user *u = op->user;
	const struct cred *saved = NULL;
	bool parked;
	s64 r;

	if (op->error) {
		kevent_op_finish(op, op->error);
		return;
	}
	if (!op->inode) {
		kevent_op_close(op);
		return;
	}
	/* A worker, or a thread with an identity of its own. */
	if (op->cred != current_cred())
		saved = override_creds(op->cred);
	do {
		struct socket *sock;

		if (op->file) {
			sock = sock_from_file(op->file);
		} else {
			/* Keeps it from being released in the middle. */
			inode_lock_shared(op->inode);
			sock = SOCKET_I(op->inode);
		}
		/* Nobody else writes it before there is a hook. */
		if (op->hooked || op->reads) {
			spin_lock_irq(&u->lock);
			op->again = false;
			spin_unlock_irq(&u->lock);
		}
		parked = false;
		r = sock->sk ? kevent_op_try(op, sock) : -EBADF;
		if (r == -EAGAIN)
			parked = kevent_op_park(op, sock);
		if (!op->file)
			inode_unlock_shared(op->inode);
	} while (r == -EAGAIN && !parked);
	if (saved)
		revert_creds(saved);
	if (r == KEVENT_AGAIN) {
		kevent_op_finish(op, -EAGAIN);
	} else if (r == -EAGAIN || r == KEVENT_WAITS) {
		if (list_empty(&op->lane))
			list_add_tail(&op->lane, kevent_op_lane(op));
	} else {
		kevent_op_finish(op, r);
	}
}

/* ---- Running those that are ready ---- */

/* Is there something for KEVENT_ENTER to do? Any context; a glance. */
bool kevent_ops_wait(const struct kevent_user *u)
{
	return !list_empty(&u->runnable) || !list_empty(&u->owners) ||
	       (!list_empty(&u->stalled) && kevent_has_room(u));
}

/* Those that waited for room, buffers, or a thread like this one, may run. */
static void kevent_ops_resume(struct kevent_user *u)
{
	struct kevent_op *op, *next;
	u16 id;

	list_for_each_entry_safe(op, next, &u->starved, run) {
		if (kevent_pool_peek(op->pool, &id) == -ENOBUFS)
			continue;
		spin_lock_irq(&u->lock);
		list_move_tail(&op->run, &u->runnable);
		spin_unlock_irq(&u->lock);
	}
	spin_lock_irq(&u->lock);
	if (!list_empty(&u->stalled) && kevent_has_room(u))
		list_splice_tail_init(&u->stalled, &u->runnable);
	list_for_each_entry_safe(op, next, &u->owners, run)
		if (op->files == current->files)
			list_move_tail(&op->run, &u->runnable);
	spin_unlock_irq(&u->lock);
}

/*
 * Must the submitter's own process do it? Descriptors are his, those that are closed
 * too; and a Unix socket tells its peer who has connected or sent.
 */
static bool kevent_is_owners(const struct kevent_op *op)
{
	return !op->error && (op->opcode == KEVENT_OP_ACCEPT ||
			      (!op->file && kevent_op_sends(op)));
}

/*
 * Runs what is ready, and what these let begin.
 * Context: process with the opener's memory, u->mutex held, which is dropped for a
 * while by KEVENT_OP_CLOSE: others may run, end and add operations then.
 */
void kevent_ops_run(struct kevent_user *u)
{
	bool others = false;
	LIST_HEAD(ready);
	struct kevent_op *op;

	if (!list_empty(&u->starved) || !list_empty(&u->stalled) ||
	    !list_empty(&u->owners))
		kevent_ops_resume(u);
	if (list_empty(&u->runnable))
		return;
	spin_lock_irq(&u->lock);
	do {
		list_splice_init(&u->runnable, &ready);
		u->fresh = false;
		while (!list_empty(&ready)) {
			op = list_first_entry(&ready, struct kevent_op, run);
			if (op->files != current->files &&
			    kevent_is_owners(op)) {
				list_move_tail(&op->run, &u->owners);
				others = true;
				continue;
			}
			list_del_init(&op->run);
			op->state = KEVENT_OP_RUNNING;
			if (!op->inode && !list_empty(&ready)) {
				/* It drops the mutex: let others have them. */
				list_splice_init(&ready, &u->runnable);
				u->fresh = true;
			}
			spin_unlock_irq(&u->lock);
			kevent_op_run(op);
			cond_resched();
			spin_lock_irq(&u->lock);
		}
	} while (u->fresh && !fatal_signal_pending(current));
	if (others)
		WRITE_ONCE(u->news, u->news + 1);
	spin_unlock_irq(&u->lock);
	/* They did not see those in our list. */
	if (others)
		kevent_wake(u, true);
}

/* Nobody was in KEVENT_ENTER to do it. Context: worker. */
void kevent_run_work(struct work_struct *work)
{
	struct kevent_user *u =
		container_of(work, struct kevent_user, run_work.work);

	if (!mmget_not_zero(u->mm)) {
		mutex_lock(&u->mutex);
		kevent_ops_end(u);
		mutex_unlock(&u->mutex);
		return;
	}
	if (list_empty(&u->runnable)) {
		mmput_async(u->mm);
		return;
	}
	kthread_use_mm(u->mm);
	mutex_lock(&u->mutex);
	kevent_ops_run(u);
	/* Those that have yielded. */
	if (!list_empty(&u->runnable))
		queue_delayed_work(kevent_workqueue, &u->run_work, 0);
	mutex_unlock(&u->mutex);
	kthread_unuse_mm(u->mm);
	/* Not ours to tear down: our release waits for this very work. */
	mmput_async(u->mm);
	kevent_note_flags(u);
}

/* ---- Cancelling ---- */

static bool kevent_op_matches(const struct kevent_op *op,
			      const struct kevent_sqe *s,
			      const struct inode *inode)
{
	return (!inode || op->inode == inode) &&
	       (s->events & KEVENT_CANCEL_ANY || op->user_data == s->arg[0]);
}

static unsigned int kevent_cancel_lane(struct list_head *lane,
				       const struct kevent_sqe *s,
				       const struct inode *inode)
{
	struct kevent_op *op, *next;
	unsigned int count = 0;

restart:
	list_for_each_entry_safe(op, next, lane, lane) {
		unsigned int others;
		bool sends;

		cond_resched();
		if (fatal_signal_pending(current))
			break;
		if (!kevent_op_matches(op, s, inode))
			continue;
		sends = kevent_op_sends(op) && op->opcode != KEVENT_OP_CONNECT;
		others = kevent_op_finish(op, sends && op->done ? op->done :
								  -ECANCELED);
		count += 1 + (s->events & KEVENT_CANCEL_ANY ? others : 0);
		if (others) /* `next` is one of them, perhaps */
			goto restart;
	}
	return count;
}

/* Ends all without a word. Context: process, u->mutex held. */
void kevent_ops_end(struct kevent_user *u)
{
	struct kevent_op *op, *next;
	LIST_HEAD(done);
	unsigned int i;

	for (i = 0; u->lanes && i <= KEVENT_LANES; i++) {
		while (!list_empty(&u->lanes[i])) {
			op = list_first_entry(&u->lanes[i], struct kevent_op,
					      lane);
			kevent_op_release(op);
			kevent_op_free(op);
			cond_resched();
		}
	}
	spin_lock_irq(&u->lock);
	list_splice_init(&u->done, &done);
	WRITE_ONCE(u->ready_count, u->ready_count - u->done_count);
	u->done_count = 0;
	spin_unlock_irq(&u->lock);
	list_for_each_entry_safe(op, next, &done, run) {
		kevent_op_free(op);
		cond_resched();
	}
	list_for_each_entry_safe(op, next, &u->spare, run)
		kmem_cache_free(kevent_op_cache, op);
	INIT_LIST_HEAD(&u->spare);
	u->spares = 0;
}

/* ---- Submitting ---- */

/* Which flags and arguments an operation has. */
static bool kevent_op_valid(const struct kevent_sqe *s)
{
	u16 flags = KEVENT_SKIP_SUCCESS;
	unsigned int arguments;
	u32 events = 0;
	unsigned int i;

	switch (s->opcode) {
	case KEVENT_OP_ACCEPT:
		flags = KEVENT_MULTISHOT;
		events = KEVENT_ACCEPT_RECV;
		arguments = s->events & KEVENT_ACCEPT_RECV ? 2 : 1;
		if (s->arg[0] & ~(u64)(SOCK_CLOEXEC | SOCK_NONBLOCK))
			return false;
		break;
	case KEVENT_OP_CONNECT:
		arguments = 2;
		if (!s->arg[1] || s->arg[1] > sizeof(struct sockaddr_storage))
			return false;
		break;
	case KEVENT_OP_RECV:
		events = KEVENT_RECV_POOL | KEVENT_RECV_WAIT;
		arguments = 2;
		if (s->events & KEVENT_RECV_POOL) {
			flags = KEVENT_MULTISHOT;
			arguments = 1;
		}
		break;
	case KEVENT_OP_SEND:
		events = KEVENT_SEND_MORE | KEVENT_SEND_VECTOR;
		arguments = 2;
		if (s->events & KEVENT_SEND_VECTOR) {
			arguments = 3;
			if (s->arg[1] > KEVENT_MAX_VECTOR ||
			    s->arg[2] > MAX_RW_COUNT)
				return false;
		}
		break;
	case KEVENT_OP_SENDFILE:
	case KEVENT_OP_SENDFILE_PATH:
		arguments = 4;
		break;
	case KEVENT_OP_SHUTDOWN:
		arguments = 1;
		if (s->arg[0] > SHUT_RDWR)
			return false;
		break;
	case KEVENT_OP_CLOSE:
		arguments = 0;
		break;
	case KEVENT_OP_CANCEL:
		events = KEVENT_CANCEL_ANY;
		arguments = 1;
		if (s->events & KEVENT_CANCEL_ANY && s->arg[0])
			return false;
		break;
	default:
		return false;
	}
	for (i = arguments; i < ARRAY_SIZE(s->arg); i++)
		if (s->arg[i])
			return false;
	if (s->opcode != KEVENT_OP_CANCEL && !(s->flags & KEVENT_MULTISHOT))
		flags |= KEVENT_LINK;
	return !s->source && !s->result && !(s->flags & ~flags) &&
	       !(s->events & ~events);
}

/* Returns how many it has ended, or -errno. Context: process, u->mutex held. */
int kevent_op_cancel(struct kevent_user *u, const struct kevent_sqe *s)
{
	unsigned int count = 0, i;

	if (!kevent_op_valid(s))
		return -EINVAL;
	if (s->fd >= 0) {
		struct file *file = fget(s->fd);
		const struct inode *inode;

		if (!file)
			return -EBADF;
		inode = file_inode(file);
		for (i = 0; i < 2; i++)
			count += kevent_cancel_lane(kevent_lane(u, inode, i), s,
						    inode);
		fput(file);
	} else {
		for (i = 0; i <= KEVENT_LANES; i++)
			count += kevent_cancel_lane(&u->lanes[i], s, NULL);
	}
	return count ? count : -ENOENT;
}

/* Takes hold of the socket. Context: process. */
static int kevent_op_set_socket(struct kevent_op *op, int fd)
{
	struct file *file = fget(fd);
	struct socket *sock;

	if (!file)
		return -EBADF;
	sock = sock_from_file(file);
	if (!sock || !sock->sk) {
		fput(file);
		return -ENOTSOCK;
	}
	op->inode = file_inode(file);
	if (sock->sk->sk_family == AF_UNIX && SOCK_INODE(sock) == op->inode) {
		ihold(op->inode);
		fput(file);
	} else {
		op->file = file;
	}
	return 0;
}

static int kevent_op_set_pool(struct kevent_op *op, u64 id)
{
	struct kevent_user *u = op->user;

	if (id >= KEVENT_MAX_POOLS || !u->pools[id])
		return -ENOENT;
	op->pool = u->pools[id];
	op->pool->users++;
	return 0;
}

static int kevent_op_set(struct kevent_op *op, const struct kevent_sqe *s)
{
	op->address = s->arg[0];
	op->bytes = s->arg[1];
	op->wanted = kevent_op_sends(op) ?
			     KEVENT_OUT | KEVENT_ERR | KEVENT_HUP :
			     KEVENT_IN | KEVENT_RDHUP | KEVENT_ERR | KEVENT_HUP;
	switch (s->opcode) {
	case KEVENT_OP_ACCEPT:
		if (!kevent_may_accept(op))
			return -EOPNOTSUPP;
		if (s->events & KEVENT_ACCEPT_RECV)
			return kevent_op_set_pool(op, s->arg[1]);
		break;
	case KEVENT_OP_RECV:
		if (s->events & KEVENT_RECV_POOL)
			return kevent_op_set_pool(op, s->arg[0]);
		op->total = op->bytes;
		break;
	case KEVENT_OP_SEND:
		if (s->events & KEVENT_SEND_VECTOR) {
			op->offset = s->arg[2];
			break; /* the total is known when they have been read */
		}
		if (op->bytes > MAX_RW_COUNT)
			return -EINVAL;
		op->total = op->bytes;
		break;
	case KEVENT_OP_SENDFILE:
	case KEVENT_OP_SENDFILE_PATH:
		return kevent_sendfile_set(op, s);
	}
	return 0;
}

/* NULL if there are too many, or no memory. Context: process, u->mutex held. */
struct kevent_op *kevent_op_alloc(struct kevent_user *u)
{
	struct kevent_op *op;

	if (u->ops + READ_ONCE(u->done_count) >= KEVENT_MAX_OPERATIONS ||
	    !kevent_account_charge(u->account))
		return NULL;
	if (u->spares) {
		op = list_first_entry(&u->spare, struct kevent_op, run);
		list_del(&op->run);
		u->spares--;
		memset(op, 0, sizeof(*op));
	} else {
		op = kmem_cache_zalloc(kevent_op_cache, GFP_KERNEL_ACCOUNT);
		if (!op) {
			kevent_account_uncharge(u->account);
			return NULL;
		}
	}
	WRITE_ONCE(u->ops, u->ops + 1);
	INIT_LIST_HEAD(&op->lane);
	INIT_LIST_HEAD(&op->run);
	op->user = u;
	op->state = KEVENT_OP_RUNNING;
	return op;
}

/*
 * Takes an operation's arguments, and hold of what it names. What is wrong with it
 * is left in op->error. Context: process of the opener, u->mutex held.
 */
static void kevent_op_prepare(struct kevent_op *op, const struct kevent_sqe *s)
{
	op->opcode = s->opcode;
	op->events = s->events;
	op->user_data = s->user_data;
	op->handle = s->handle;
	op->total = -1;
	op->files = current->files;
	op->cred = get_current_cred();

	if (!kevent_op_valid(s)) {
		op->error = -EINVAL;
		return;
	}
	op->flags = s->flags;
	if (s->opcode == KEVENT_OP_CLOSE) {
		op->address = s->fd;
		return;
	}
	op->error = kevent_op_set_socket(op, s->fd);
	if (!op->error)
		op->error = kevent_op_set(op, s);
}

/*
 * Begins with an operation, or adds it to the chain, which begins when it is
 * complete; whatever is wrong with it is told by its entry.
 * Context: process of the opener, u->mutex held, which it may drop for a while.
 */
void kevent_op_submit(struct kevent_op *op, const struct kevent_sqe *s,
		      struct kevent_chain *chain)
{
	const bool linked = s->flags & KEVENT_LINK;
	struct kevent_op *before = chain->last;
	bool queued;

	kevent_op_prepare(op, s);
	queued = op->inode && !op->error &&
		 kevent_lane_first(op->user, op->inode, kevent_op_sends(op));
	if (!queued && !before && !linked) {
		kevent_op_run(op);
		return;
	}
	/* Its place among those of its socket it has from now on. */
	list_add_tail(&op->lane, kevent_op_lane(op));
	if (queued)
		op->state = KEVENT_OP_QUEUED;
	if (before) {
		op->state = KEVENT_OP_BLOCKED;
		op->before = before;
		before->link = op;
	} else if (linked) {
		chain->first = op;
	}
	chain->last = linked ? op : NULL;
	if (!linked)
		kevent_chain_begin(chain);
}

/* All of the chain's operations are there. Context: the same. */
void kevent_chain_begin(struct kevent_chain *chain)
{
	struct kevent_op *op = chain->first;

	chain->first = NULL;
	chain->last = NULL;
	if (op && op->state == KEVENT_OP_RUNNING)
		kevent_op_run(op);
}

/*
 * An element of the submission ring has failed, and made no operation: if others
 * were to follow it they do not begin either. Context: the same.
 */
void kevent_chain_cut(struct kevent_chain *chain, const struct kevent_sqe *s)
{
	chain->cut = s->flags & KEVENT_LINK &&
		     (kevent_is_operation(s->opcode) || chain->last ||
		      chain->cut);
	kevent_chain_begin(chain);
}

int kevent_op_init(void)
{
	int r;

	kevent_op_cache = kmem_cache_create("kevent_op",
					    sizeof(struct kevent_op), 0,
					    SLAB_ACCOUNT, NULL);
	if (!kevent_op_cache)
		return -ENOMEM;
	r = kevent_read_init();
	if (r)
		kmem_cache_destroy(kevent_op_cache);
	return r;
}

void kevent_op_exit(void)
{
	kevent_read_exit();
	kmem_cache_destroy(kevent_op_cache);
}
