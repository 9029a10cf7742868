// SPDX-License-Identifier: GPL-2.0-only
/*
 * Network AIO: operations on sockets that complete by an entry.
 *
 * An operation is tried when it is submitted and, each time its socket's wait
 * queue says that it is ready, by the next KEVENT_ENTER: there the memory that it
 * names is at hand, nothing has to be pinned and nobody woken. If nobody is in
 * KEVENT_ENTER a worker that borrows the opener's memory does it a little later; or
 * the next KEVENT_ENTER, if a page of it is not there. What waits for its socket costs
 * no thread.
 *
 * All of it happens under user->mutex. Callbacks of wait queues put operations on
 * user->runnable and touch nothing else. What arrives for a pinned pool is copied
 * without any of this: see softirq.c.
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
#include <net/sock.h>

#include "core.h"
#include "op.h"

struct kmem_cache *kevent_op_cache;

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
	} else if (op->state == KEVENT_OP_RUNNING ||
		   op->state == KEVENT_OP_COPYING) {
		op->again = true;
	}
	spin_unlock_irqrestore(&u->lock, flags);
	/* If somebody waits he looks to it that it is run. */
	if (news && !kevent_wake(u, false))
		kevent_work_queue(&u->run_work, 1);
}

/* Context: any; the lock of the wait queue held. */
static int kevent_op_woken(wait_queue_entry_t *wait, unsigned int mode,
			   int sync, void *key)
{
	struct kevent_op *op = container_of(wait, struct kevent_op, hook.wait);
	const u32 mask = (__force u32)key_to_poll(key);

	if (mask && !(mask & op->wanted))
		return 0;
	if (!(op->sk && mask & KEVENT_IN && kevent_copy_soon(op)))
		kevent_op_wake(op);
	return 1;
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
	if (asleep) {
		kevent_pool_ungrant(op);
		op->state = KEVENT_OP_PARKED;
	}
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
	kevent_pool_ungrant(op);
	op->state = KEVENT_OP_WAITING;
	list_add_tail(&op->run, list);
	kevent_set_flag(u, KEVENT_RING_PENDING);
	if (news)
		WRITE_ONCE(u->news, u->news + 1);
	spin_unlock_irq(&u->lock);
	return KEVENT_WAITS;
}

/*
 * Leaves it to somebody else: to a thread that has made room, or to one of the
 * submitter. He may have been here before it was on the list, and is told.
 * Context: process, user->mutex held.
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

/*
 * There is no room in the ring. If it has had some of it, `turn` entries, it goes
 * behind those that are to be tried yet. Context: the same.
 */
s64 kevent_op_stall(struct kevent_op *op, unsigned int turn)
{
	return turn ? kevent_op_yield(op) :
		      kevent_op_leave(op, &op->user->stalled);
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

/* Context: process, user->mutex held. */
static void kevent_op_withdraw(struct kevent_op *op)
{
	struct kevent_user *u = op->user;

	spin_lock_irq(&u->lock);
	kevent_pool_ungrant(op);
	if (op->state == KEVENT_OP_STARVED)
		WRITE_ONCE(u->starving, u->starving - 1);
	op->state = KEVENT_OP_ENDED;
	list_del_init(&op->run);
	spin_unlock_irq(&u->lock);
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
	if (op->sk) {
		/* The tasklet has it no longer in its hands. */
		spin_lock_bh(&u->copy_lock);
		kevent_op_withdraw(op);
		spin_unlock_bh(&u->copy_lock);
	} else {
		kevent_op_withdraw(op);
	}
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
struct list_head *kevent_op_lane(const struct kevent_op *op)
{
	if (!op->inode)
		return &op->user->lanes[KEVENT_LANES];
	return kevent_lane(op->user, op->inode, kevent_op_sends(op));
}

/* The oldest of that socket and direction. */
struct kevent_op *kevent_lane_first(const struct kevent_user *u,
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
	bool all, go;

	kevent_op_release(op);
	if (op->told)
		result = op->done;
	op->done = result;
	all = result >= 0 && (op->total < 0 || result == op->total);
	/* Of a pool's buffer any length is the full one, but for none. */
	go = all && (result || op->opcode != KEVENT_OP_RECV || !op->pool);
	if (!op->told && (!all || !(op->flags & KEVENT_SKIP_SUCCESS)) &&
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
unsigned int kevent_op_finish(struct kevent_op *op, s64 result)
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

/* ---- Trying ---- */

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
 * Is it right to try it where page faults are off? What would lose something, or end
 * before its time, if memory of the user turned out to be missing in the middle of it
 * is left to KEVENT_ENTER. Context: as kevent_op_run().
 */
static bool kevent_survives_fault(const struct kevent_op *op, struct sock *sk)
{
	const struct kevent_parts *parts = &op->parts;

	switch (op->opcode) {
	case KEVENT_OP_RECV:
		if (op->pool && op->pool->pin)
			return true;
		/* A short one would end the chain. */
		if (op->link && !op->pool &&
		    offset_in_page(op->address) + op->bytes > PAGE_SIZE)
			return false;
		if (sk->sk_family == AF_UNIX)
			return sk->sk_type == SOCK_STREAM &&
			       !READ_ONCE(sk->sk_user_data);
		break;
	case KEVENT_OP_SEND:
		break;
	case KEVENT_OP_SENDFILE:
	case KEVENT_OP_SENDFILE_PATH:
		if (op->done >= parts->header_bytes && !parts->trailer_bytes)
			return true;
		break;
	default:
		return true;
	}
	return kevent_is_plain_tcp(sk);
}

/* Those that wait for buffers that are there may run. Context: as kevent_op_run(). */
static void kevent_ops_feed(struct kevent_user *u)
{
	u32 id;

	for (id = 0; u->starving && id < KEVENT_MAX_POOLS; id++)
		if (u->pools[id])
			kevent_pool_grant(u, u->pools[id]);
}

/*
 * Leaves what may run to one who waits, or a worker. Context: process, no spinlock.
 */
void kevent_ops_pass_on(struct kevent_user *u)
{
	if (list_empty(&u->runnable))
		return;
	if (wq_has_sleeper(&u->wait))
		wake_up(&u->wait);
	else
		kevent_work_queue(&u->run_work, 1);
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
	kevent_ops_feed(u);
	kevent_ops_pass_on(u);
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
void kevent_op_run(struct kevent_op *op)
{
	struct kevent_user *u = op->user;
	const struct cred *saved = NULL;
	bool parked;
	s64 r;

	if (op->error || op->told) {
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
		if (!sock->sk)
			r = -EBADF;
		else if (pagefault_disabled() && !kevent_survives_fault(op, sock->sk))
			r = -EFAULT;
		else
			r = kevent_op_try(op, sock);
		if (r == -EAGAIN)
			parked = kevent_op_park(op, sock);
		else if (kevent_faulted(r))
			r = kevent_op_leave(op, &u->owners);
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

/* Is there room for those that wait for it? Any context; a glance. */
bool kevent_stalled_may_run(const struct kevent_user *u)
{
	return !list_empty(&u->stalled) && kevent_has_room(u);
}

/* Is there something for KEVENT_ENTER to do? Any context; a glance. */
bool kevent_ops_wait(const struct kevent_user *u)
{
	return !list_empty(&u->runnable) || !list_empty(&u->owners) ||
	       kevent_stalled_may_run(u);
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

/* Those that waited for room, or a thread like this one, may run. */
static void kevent_ops_resume(struct kevent_user *u)
{
	struct kevent_op *op, *next;

	spin_lock_irq(&u->lock);
	if (kevent_stalled_may_run(u))
		/* Before who has come later. */
		list_splice_init(&u->stalled, &u->runnable);
	/* poll(2) only says that there are some. */
	list_for_each_entry_safe(op, next, &u->owners, run)
		if (!pagefault_disabled() &&
		    (op->files == current->files || !kevent_is_owners(op)))
			list_move_tail(&op->run, &u->runnable);
	spin_unlock_irq(&u->lock);
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

	kevent_ops_feed(u);
	if (!list_empty(&u->stalled) || !list_empty(&u->owners))
		kevent_ops_resume(u);
	if (list_empty(&u->runnable))
		return;
	spin_lock_irq(&u->lock);
	do {
		list_splice_init(&u->runnable, &ready);
		u->fresh = false;
		while (!list_empty(&ready)) {
			op = list_first_entry(&ready, struct kevent_op, run);
			if (kevent_is_owners(op) &&
			    (op->files != current->files ||
			     pagefault_disabled())) {
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
	/* Some had no use for the buffer that was kept for them. */
	kevent_ops_feed(u);
}

/* Nobody was in KEVENT_ENTER to do it. Context: worker. */
void kevent_run_work(struct kevent_user *u)
{
	if (!mmget_not_zero(u->mm)) {
		mutex_lock(&u->mutex);
		kevent_ops_end(u);
		kevent_pools_unpin(u);
		mutex_unlock(&u->mutex);
		return;
	}
	if (list_empty(&u->runnable) && !READ_ONCE(u->starving) &&
	    list_empty(&u->stalled)) {
		mmput_async(u->mm);
		return;
	}
	kthread_use_mm(u->mm);
	mutex_lock(&u->mutex);
	u->worker_runs++;
	pagefault_disable();
	kevent_ops_run(u);
	pagefault_enable();
	/* Those that have yielded. */
	if (!list_empty(&u->runnable))
		kevent_work_queue(&u->run_work, 0);
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
	return (!inode || op->inode == inode) && !op->told &&
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
	/* Buffers that were kept for them. */
	kevent_ops_feed(u);
	return count ? count : -ENOENT;
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
