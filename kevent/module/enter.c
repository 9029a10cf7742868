// SPDX-License-Identifier: GPL-2.0-only
/* KEVENT_CONTROL and KEVENT_ENTER: changes in, waiting, entries out. */
#include <linux/ktime.h>
#include <linux/sched/signal.h>
#include <linux/task_work.h>
#include <linux/uaccess.h>

#include "core.h"

/*
 * Reads a struct that begins with its size. Bytes beyond ours must be zero.
 * `*given` is what the caller gave, of ours at most: as much may be written back.
 */
int kevent_copy_struct(void *to, size_t size, size_t least,
		       const void __user *from, u32 *given)
{
	u32 user_size;

	/* Most callers know this very version: one copy is enough for them. */
	if (!copy_from_user(to, from, size) && *(u32 *)to == size) {
		*given = size;
		return 0;
	}
	if (get_user(user_size, (const u32 __user *)from))
		return -EFAULT;
	if (user_size < least || user_size > PAGE_SIZE)
		return -EINVAL;
	*given = min_t(size_t, user_size, size);
	return copy_struct_from_user(to, size, from, user_size);
}

/*
 * Makes changes from user memory; returns how many. `*error` is why it stopped
 * before the end. Context: process, no locks.
 */
static u32 kevent_changes(struct kevent_user *u, u64 address, u32 count,
			  int *error)
{
	struct kevent_sqe __user *from = u64_to_user_ptr(address);
	u32 done;

	*error = 0;
	for (done = 0; done < count; done++) {
		struct kevent_sqe s;

		if (copy_from_user(&s, &from[done], sizeof(s))) {
			*error = -EFAULT;
			break;
		}
		if (mutex_lock_killable(&u->mutex)) {
			*error = -EINTR;
			break;
		}
		kevent_change(u, &s, false);
		mutex_unlock(&u->mutex);
		if (put_user(s.handle, &from[done].handle) ||
		    put_user(s.events, &from[done].events) ||
		    put_user(s.result, &from[done].result)) {
			/* It was made, but nobody can know. */
			if (s.opcode == KEVENT_OP_ADD && s.result >= 0) {
				struct kevent *k;

				mutex_lock(&u->mutex);
				k = kevent_find(u, s.handle);
				if (k)
					kevent_remove(k);
				mutex_unlock(&u->mutex);
			}
			*error = -EFAULT;
			break;
		}
		cond_resched();
	}
	return done;
}

long kevent_control_call(struct kevent_user *u, void __user *argument)
{
	struct kevent_control c;
	u32 given, done;
	int r;

	r = kevent_copy_struct(&c, sizeof(c), KEVENT_CONTROL_SIZE_V1, argument,
			       &given);
	if (r)
		return r;
	if (c.flags || c.reserved || c.count > KEVENT_MAX_CHANGES)
		return -EINVAL;
	done = kevent_changes(u, c.changes, c.count, &r);
	return done ? done : r;
}

/*
 * Takes elements of the submission ring, each copied before it is looked at.
 * Context: process of the opener, u->mutex held, which it may drop for a while.
 */
static int kevent_submit(struct kevent_user *u, u32 count, u32 *submitted)
{
	/* Pairs with the user's release, after he has filled the elements. */
	const u32 tail = smp_load_acquire(&u->ring->sq_tail);
	struct kevent_chain chain = {};

	if (tail - u->sq_head > u->sq_entries)
		return -EINVAL;
	while (*submitted < count && u->sq_head != tail &&
	       !fatal_signal_pending(current)) {
		const u64 *from =
			(const u64 *)&u->sq[u->sq_head & (u->sq_entries - 1)];
		union {
			struct kevent_sqe sqe;
			u64 words[sizeof(struct kevent_sqe) / sizeof(u64)];
		} s;
		struct kevent_op *op = NULL;
		unsigned int i;

		for (i = 0; i < ARRAY_SIZE(s.words); i++)
			s.words[i] = READ_ONCE(from[i]);
		/* An operation keeps room for its entry in its own object. */
		if (kevent_is_operation(s.sqe.opcode) && !chain.cut)
			op = kevent_op_alloc(u);
		if (!op && !kevent_reserve(u))
			break;
		u->sq_head++;
		/* The element has been copied: the user may fill it again. */
		smp_store_release(&u->ring->sq_head, u->sq_head);
		++*submitted;
		if (op) {
			kevent_op_submit(op, &s.sqe, &chain);
			cond_resched();
			/* The mutex was dropped perhaps. */
			if ((s32)(tail - u->sq_head) < 0)
				break;
			continue;
		}
		if (kevent_is_operation(s.sqe.opcode))
			s.sqe.result = chain.cut ? -ECANCELED : -EAGAIN;
		else if (chain.cut || chain.last)
			s.sqe.result = -EINVAL;
		else if (s.sqe.opcode == KEVENT_OP_CANCEL)
			s.sqe.result = kevent_op_cancel(u, &s.sqe);
		else if (s.sqe.result)
			s.sqe.result = -EINVAL;
		else
			kevent_change(u, &s.sqe, true);
		if (s.sqe.flags & KEVENT_SKIP_SUCCESS && s.sqe.result >= 0)
			kevent_complete(u, NULL);
		else
			kevent_complete(u, &s.sqe);
		kevent_chain_cut(&chain, &s.sqe);
		cond_resched();
		if ((s32)(tail - u->sq_head) < 0)
			break;
	}
	kevent_chain_begin(&chain);
	return 0;
}

/* Context: process, u->mutex held. */
static void kevent_test(struct kevent *k)
{
	u32 events = k->ops->test ? k->ops->test(k) : 0;

	if (events)
		kevent_deliver_events(k, events);
	cond_resched();
}

/*
 * Tests sources of which something unknown was heard. Some can only be tested by
 * the owner: others leave them to him. Context: process, u->mutex held.
 */
void kevent_test_heard(struct kevent_user *u)
{
	const bool owner = current->mm == u->mm;
	LIST_HEAD(heard);
	LIST_HEAD(mine);
	struct kevent *k;

	if (list_empty(&u->test))
		return;
	spin_lock_irq(&u->lock);
	list_splice_init(&u->test, &heard);
	while (!list_empty(&heard)) {
		bool leave;

		k = list_first_entry(&heard, struct kevent, test);
		leave = !owner && k->state & KEVENT_OWNERS;
		if (leave)
			list_move_tail(&k->test, &mine);
		else
			list_del_init(&k->test);
		spin_unlock_irq(&u->lock);
		/* Nobody removes it: we hold the mutex. */
		if (!leave)
			kevent_test(k);
		spin_lock_irq(&u->lock);
	}
	list_splice(&mine, &u->test);
	spin_unlock_irq(&u->lock);
}

/*
 * Tests all that must be: beside those, level interests whose entry has been
 * read; and lets timers go on. Context: process, u->mutex held.
 */
void kevent_test_all(struct kevent_user *u)
{
	LIST_HEAD(seen);
	LIST_HEAD(later);
	struct kevent *k;

	kevent_reap(u);
	kevent_test_heard(u);
	if (list_empty(&u->seen) && !READ_ONCE(u->ready_count))
		return;
	spin_lock_irq(&u->lock);
	kevent_flush(u);
	list_splice_init(&u->seen, &seen);
	while (!list_empty(&seen)) {
		k = list_first_entry(&seen, struct kevent, seen);
		/* Those behind it are younger. */
		if (kevent_is_unread(k))
			break;
		if (!list_empty(&k->ready)) {
			/* It is about to be told, and comes here again. */
			if (k->source == KEVENT_SOURCE_TIMER)
				list_move_tail(&k->seen, &later);
			else
				list_del_init(&k->seen);
			continue;
		}
		list_del_init(&k->seen);
		spin_unlock_irq(&u->lock);
		if (k->source != KEVENT_SOURCE_TIMER)
			kevent_test(k);
		else if (k->timer.stopped)
			kevent_timer_resume(k);
		spin_lock_irq(&u->lock);
	}
	list_splice(&seen, &u->seen);
	list_splice(&later, &u->seen);
	spin_unlock_irq(&u->lock);
	kevent_reap(u);
}

/* ---- Waiting ---- */

struct kevent_waiter {
	wait_queue_entry_t wait;
	struct kevent_user *user;
	u32 min;
	unsigned int news;	/* of user, when it last looked */
};

/* Are there `min` entries, or is there something to find out? Any context. */
static bool kevent_enough(const struct kevent_waiter *w)
{
	struct kevent_user *u = w->user;

	return kevent_available(u) >= READ_ONCE(w->min) ||
	       READ_ONCE(u->news) != w->news ||
	       !list_empty(&u->test) || !list_empty(&u->runnable) ||
	       kevent_stalled_may_run(u);
}

/* Context: any; u->wait.lock held. */
static int kevent_waiter_woken(wait_queue_entry_t *wait, unsigned int mode,
			       int sync, void *key)
{
	struct kevent_waiter *w =
		container_of(wait, struct kevent_waiter, wait);

	if (!kevent_enough(w))
		return 0;
	return autoremove_wake_function(wait, mode, sync, key);
}

/*
 * Sleeps until `min` entries are there, or signals to be taken, or time is up.
 * Returns 0, or -EINTR. Context: process, no locks.
 */
static int kevent_sleep(struct kevent_user *u, u32 *min,
			unsigned int news,
			const struct kevent_deadline *timeout,
			const struct kevent_deadline *min_wait)
{
	struct kevent_waiter w = {
		.user = u,
		.min = *min,
		.news = news,
	};
	int r = 0;

	init_waitqueue_func_entry(&w.wait, kevent_waiter_woken);
	w.wait.private = current;
	INIT_LIST_HEAD(&w.wait.entry);
	for (;;) {
		prepare_to_wait_exclusive(&u->wait, &w.wait,
					  TASK_INTERRUPTIBLE);
		if (kevent_enough(&w) || kevent_deadline_passed(timeout)) {
			/* Not for ever, if nothing comes of it. */
			if (!kevent_available(u) && signal_pending(current))
				r = -EINTR;
			break;
		}
		if (w.min > 1 && kevent_deadline_passed(min_wait)) {
			WRITE_ONCE(w.min, 1);
			*min = 1;
			continue;
		}
		if (signal_pending(current)) {
			r = -EINTR;
			break;
		}
		schedule();
	}
	finish_wait(&u->wait, &w.wait);
	return r;
}

/* ---- Entries out ---- */

/*
 * Is the entry still true? Only of interests that want to know.
 * Context: process, u->mutex held.
 */
static bool kevent_still(struct kevent_user *u, u64 handle)
{
	struct kevent *k = kevent_find(u, handle);

	if (!k || !(k->flags & KEVENT_LAST_CHECK) || !k->ops->test)
		return true;
	spin_lock_irq(&u->lock);
	/* What happens from here on is not told by this entry. */
	k->position = 0;
	spin_unlock_irq(&u->lock);
	if (k->ops->test(k))
		return true;
	if (!(k->flags & (KEVENT_ONESHOT | KEVENT_DISPATCH)))
		return false;
	/* It has not been told: what the entry did to it is undone. */
	spin_lock_irq(&u->lock);
	if (k->state & KEVENT_FINISHED)
		list_del_init(&k->test);
	if (k->state & KEVENT_DISPATCHED)
		k->state &= ~KEVENT_OFF;
	k->state &= ~(KEVENT_FINISHED | KEVENT_DISPATCHED);
	spin_unlock_irq(&u->lock);
	kevent_test(k);
	return false;
}

/*
 * Copies `count` entries from `head` on, and returns how many could be.
 * copy_to_user() would look for the ring among all vmalloc areas, under a lock of
 * all of them (hardened usercopy). Context: process, u->consume held.
 */
static u32 kevent_copy_run(struct kevent_user *u,
			   struct kevent_entry __user *to, u32 head, u32 count)
{
	const u32 mask = u->cq_entries - 1;
	u32 done = 0;

	if (!user_write_access_begin(to, count * sizeof(*to)))
		return 0;
	for (; done < count; done++) {
		const u64 *from = (const u64 *)&u->cq[(head + done) & mask];
		u64 __user *words = (u64 __user *)&to[done];

		unsafe_put_user(from[0], &words[0], out);
		unsafe_put_user(from[1], &words[1], out);
		unsafe_put_user(from[2], &words[2], out);
		unsafe_put_user(from[3], &words[3], out);
		unsafe_put_user(from[4], &words[4], out);
		unsafe_put_user(from[5], &words[5], out);
		unsafe_put_user(from[6], &words[6], out);
		unsafe_put_user(from[7], &words[7], out);
	}
out:
	user_write_access_end();
	return done;
}

/*
 * Copies entries out, oldest first. Returns how many, or -EFAULT if it could not
 * copy the first. `*dropped`: some were not true any more.
 * Context: process, u->consume held.
 */
static int kevent_copy_out(struct kevent_user *u,
			   struct kevent_entry __user *to, u32 max,
			   bool *dropped)
{
	u32 head = READ_ONCE(u->ring->cq_head);
	/* Pairs with the release in kevent_show(). */
	const u32 unread = (u32)smp_load_acquire(&u->tail) - head;
	int count = 0;
	u32 i;

	if (unread > u->cq_entries)
		return -EINVAL;
	if (!READ_ONCE(u->last_checks)) {
		const u32 want = min(unread, max);

		count = kevent_copy_run(u, to, head, want);
		/* Read: their slots may be written again. */
		smp_store_release(&u->ring->cq_head, head + count);
		return want && !count ? -EFAULT : count;
	}
	for (i = 0; i < unread && count < max; i++, head++) {
		struct kevent_entry e =
			u->cq[head & (u->cq_entries - 1)];

		if (e.source != KEVENT_SOURCE_OPERATION &&
		    !(e.flags & KEVENT_ENTRY_BROKEN)) {
			bool still;

			mutex_lock(&u->mutex);
			still = kevent_still(u, e.handle);
			mutex_unlock(&u->mutex);
			if (!still) {
				*dropped = true;
				continue;
			}
		}
		if (copy_to_user(&to[count], &e, sizeof(e))) {
			if (!count)
				count = -EFAULT;
			break;
		}
		count++;
	}
	/* Read: their slots may be written again. */
	smp_store_release(&u->ring->cq_head, head);
	return count;
}

/* ---- The call ---- */

static bool kevent_enter_valid(const struct kevent_user *u,
			       const struct kevent_enter *e)
{
	if (e->flags & ~KEVENT_ENTER_ABSOLUTE || e->submitted || e->changed ||
	    e->reserved[0] || e->reserved[1])
		return false;
	if (e->nr_changes > KEVENT_MAX_CHANGES || e->min > u->cq_entries)
		return false;
	if (e->clock != CLOCK_MONOTONIC && e->clock != CLOCK_REALTIME &&
	    e->clock != CLOCK_BOOTTIME)
		return false;
	if (e->sigmask ? e->sigmask_size != sizeof(sigset_t) : e->sigmask_size)
		return false;
	return e->entries || !e->max;
}

/*
 * Has this thread let go of a file for the last time, say by KEVENT_OP_CLOSE? What
 * that brings about, a FIN to a peer, the kernel does when the thread returns to
 * its program: it must not sleep before. Context: process, u->mutex held.
 */
static bool kevent_owes_work(const struct kevent_user *u, unsigned int let_go)
{
	/* The kernel has other such work, which may wait. */
	return u->let_go != let_go && task_work_pending(current);
}

/*
 * Does the call end for a signal? Not if it only looks, as with epoll_wait(2): the
 * kernel has signals of its own, for work that it has put off.
 */
static bool kevent_minds_signals(const struct kevent_enter *e)
{
	return (e->min && e->timeout_ns) || e->sigmask;
}

/* 0, or -EINTR. Context: process, no locks. */
static int kevent_enter_lock(const struct kevent_enter *e, struct mutex *mutex)
{
	return kevent_minds_signals(e) ? mutex_lock_interruptible(mutex) :
					 mutex_lock_killable(mutex);
}

/*
 * What must be done before waiting makes sense; `*owes`: then this thread must not
 * wait. Context: process, no locks.
 */
static int kevent_prepare(struct kevent_user *u, const struct kevent_enter *e,
			  unsigned int *news, bool *owes)
{
	unsigned int let_go;

	*news = READ_ONCE(u->news);
	if (!kevent_something_waits(u) && list_empty(&u->reap) &&
	    list_empty(&u->signals) && !READ_ONCE(u->starving))
		return 0;
	if (kevent_enter_lock(e, &u->mutex))
		return -EINTR;
	let_go = u->let_go;
	kevent_test_all(u);
	kevent_ops_run(u);
	*owes |= kevent_owes_work(u, let_go);
	/* Signals of this thread are nobody else's business. */
	*news = READ_ONCE(u->news);
	kevent_collect_signals(u);
	mutex_unlock(&u->mutex);
	kevent_note_flags(u);
	return 0;
}

static ktime_t kevent_now(clockid_t clock)
{
	switch (clock) {
	case CLOCK_REALTIME:
		return ktime_get_real();
	case CLOCK_BOOTTIME:
		return ktime_get_boottime();
	default:
		return ktime_get();
	}
}

/* Makes times of the kernel of all, once: the call may sleep more than once. */
static void kevent_make_absolute(struct kevent_enter *e)
{
	if (e->timeout_ns > 0)
		e->timeout_ns = e->flags & KEVENT_ENTER_ABSOLUTE ?
					kevent_host_time(e->clock, e->timeout_ns) :
					ktime_add_safe(kevent_now(e->clock),
						       e->timeout_ns);
	e->flags |= KEVENT_ENTER_ABSOLUTE;
	if (e->min_wait_ns > 0)
		e->min_wait_ns = ktime_add_safe(ktime_get(), e->min_wait_ns);
}

/*
 * Sleeps, and takes and tests what comes, until `*min` entries are there or time
 * is up (`*late`). Apart from its caller, which seldom comes here, since it has
 * much on its stack. Context: process, no locks.
 */
static noinline int kevent_await(struct kevent_user *u,
				 const struct kevent_enter *e, u32 *min,
				 unsigned int news, bool *late)
{
	struct kevent_deadline timeout, min_wait;
	bool owes = false;
	int r;

	kevent_deadline_begin(u, &timeout, e->timeout_ns, e->clock);
	kevent_deadline_begin(u, &min_wait, e->min_wait_ns, CLOCK_MONOTONIC);
	do {
		r = kevent_sleep(u, min, news, &timeout, &min_wait);
		if (r)
			break;
		r = kevent_prepare(u, e, &news, &owes);
		*late = kevent_deadline_passed(&timeout) || owes;
	} while (!r && !*late && kevent_available(u) < *min);
	kevent_deadline_end(u, &timeout);
	kevent_deadline_end(u, &min_wait);
	return r;
}

/*
 * Waits and copies. `owes`: something was left undone that must not wait.
 * Context: process, no locks.
 */
static int kevent_wait_and_copy(struct kevent_user *u, struct kevent_enter *e,
				bool owes)
{
	struct kevent_entry __user *to = u64_to_user_ptr(e->entries);
	u32 min = to ? min(e->min, e->max) : e->min;
	bool late = false, absolute = false;
	unsigned int news;
	int r;

	for (;;) {
		bool dropped = false;

		r = kevent_prepare(u, e, &news, &owes);
		if (r)
			break;
		if (kevent_unread(u) > u->cq_entries) {
			r = -EINVAL;
			break;
		}
		if (kevent_available(u) < min &&
		    (owes || !kevent_minds_signals(e))) {
			late = true;
		} else if (kevent_available(u) < min) {
			if (!absolute)
				kevent_make_absolute(e);
			absolute = true;
			r = kevent_await(u, e, &min, news, &late);
			if (r && !kevent_available(u))
				break;
		}
		if (!to) {
			r = min_t(u32, kevent_unread(u), INT_MAX);
			break;
		}
		if (kevent_enter_lock(e, &u->consume)) {
			r = -EINTR;
			break;
		}
		r = kevent_copy_out(u, to, e->max, &dropped);
		mutex_unlock(&u->consume);
		if (r || !min || late)
			break;
		/* Another thread was quicker, or they were not true any more. */
		if (signal_pending(current)) {
			r = -EINTR;
			break;
		}
	}
	/*
	 * This thread may have been the one that was woken for entries that it
	 * leaves to others.
	 */
	if (READ_ONCE(u->ready_count)) {
		spin_lock_irq(&u->lock);
		kevent_flush(u);
		spin_unlock_irq(&u->lock);
	}
	kevent_note_flags(u);
	/*
	 * Out of the wait queue before the glance: kevent_op_wake() adds, then
	 * looks for somebody who waits.
	 */
	smp_mb();
	if (kevent_available(u) && wq_has_sleeper(&u->wait))
		wake_up(&u->wait);
	else
		kevent_ops_pass_on(u);
	return r;
}

long kevent_enter_call(struct kevent_user *u, void __user *argument)
{
	struct kevent_enter __user *to = argument;
	struct kevent_enter e;
	sigset_t mask, saved;
	u32 submitted = 0, changed = 0, given;
	bool masked = false, owes = false;
	long r;
	int error = 0;

	r = kevent_copy_struct(&e, sizeof(e), KEVENT_ENTER_SIZE_V1, argument,
			       &given);
	if (r)
		return r;
	if (!kevent_enter_valid(u, &e))
		return -EINVAL;
	if (e.sigmask &&
	    copy_from_user(&mask, u64_to_user_ptr(e.sigmask), sizeof(mask)))
		return -EFAULT;
	if (e.to_submit) {
		unsigned int let_go;

		if (kevent_enter_lock(&e, &u->mutex))
			return -EINTR;
		let_go = u->let_go;
		/* Those that wait for room in the ring go before the new ones. */
		if (kevent_stalled_may_run(u))
			kevent_ops_run(u);
		error = kevent_submit(u, e.to_submit, &submitted);
		owes = kevent_owes_work(u, let_go);
		mutex_unlock(&u->mutex);
	}
	if (!error && e.nr_changes)
		changed = kevent_changes(u, e.changes, e.nr_changes, &error);
	if ((e.to_submit || e.nr_changes) &&
	    (put_user(submitted, &to->submitted) ||
	     put_user(changed, &to->changed)))
		error = -EFAULT;
	if (error) {
		/* What has been submitted goes on without this call. */
		if (!list_empty(&u->runnable))
			kevent_work_queue(&u->run_work, 0);
		return error;
	}
	if (e.sigmask) {
		sigdelsetmask(&mask, sigmask(SIGKILL) | sigmask(SIGSTOP));
		saved = current->blocked;
		sigprocmask(SIG_SETMASK, &mask, NULL);
		masked = true;
	}
	r = kevent_wait_and_copy(u, &e, owes);
	if (masked) {
		if (r == -EINTR) {
			/* The handler runs under `mask`, then `saved` is back. */
			current->saved_sigmask = saved;
			set_restore_sigmask();
		} else {
			sigprocmask(SIG_SETMASK, &saved, NULL);
		}
	}
	return r;
}
