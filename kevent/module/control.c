// SPDX-License-Identifier: GPL-2.0-only
/* The table of interests, and changes to it. */
#include <linux/cred.h>
#include <linux/moduleparam.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uidgid.h>

#include "core.h"

/* ---- What a user may have ---- */

/* As of epoll: interests may take a twenty-fifth of the memory. */
static unsigned long max_user_interests;
module_param(max_user_interests, ulong, 0644);
MODULE_PARM_DESC(max_user_interests,
		 "interests of one user in all queues; 0: by the memory");

static DEFINE_MUTEX(kevent_accounts_mutex);
static LIST_HEAD(kevent_accounts);

/* Finds or makes the account of current's user; NULL: no memory. */
struct kevent_account *kevent_account_get(void)
{
	const kuid_t uid = current_uid();
	struct kevent_account *account;

	mutex_lock(&kevent_accounts_mutex);
	list_for_each_entry(account, &kevent_accounts, node) {
		if (uid_eq(account->uid, uid)) {
			account->references++;
			goto out;
		}
	}
	account = kzalloc(sizeof(*account), GFP_KERNEL_ACCOUNT);
	if (account) {
		account->uid = uid;
		account->references = 1;
		INIT_LIST_HEAD(&account->waiting_reads);
		spin_lock_init(&account->works_lock);
		INIT_LIST_HEAD(&account->waiting_works);
		list_add(&account->node, &kevent_accounts);
	}
out:
	mutex_unlock(&kevent_accounts_mutex);
	return account;
}

/* Another reference, of who has one. Context: process. */
void kevent_account_hold(struct kevent_account *account)
{
	mutex_lock(&kevent_accounts_mutex);
	account->references++;
	mutex_unlock(&kevent_accounts_mutex);
}

void kevent_account_put(struct kevent_account *account)
{
	mutex_lock(&kevent_accounts_mutex);
	if (--account->references == 0) {
		list_del(&account->node);
		kfree(account);
	}
	mutex_unlock(&kevent_accounts_mutex);
}

long kevent_account_interests(const struct kevent_account *account)
{
	return atomic_long_read(&account->interests);
}

static long kevent_user_limit(void)
{
	unsigned long limit = READ_ONCE(max_user_interests);

	if (!limit)
		limit = (totalram_pages() / 25 << PAGE_SHIFT) /
			sizeof(struct kevent);
	return min_t(unsigned long, limit, LONG_MAX);
}

/* Counts an interest or operation of the user; false at his limit. Any context. */
bool kevent_account_charge(struct kevent_account *account)
{
	if (atomic_long_inc_return(&account->interests) <= kevent_user_limit())
		return true;
	atomic_long_dec(&account->interests);
	return false;
}

/* Context: any. */
void kevent_account_uncharge(struct kevent_account *account)
{
	atomic_long_dec(&account->interests);
}

/* ---- The table ---- */

/* Context: process, u->mutex held. NULL: there is none. */
struct kevent *kevent_find(struct kevent_user *u, u64 handle)
{
	struct kevent *k = xa_load(&u->table, KEVENT_HANDLE_INDEX(handle));

	if (!k || k->generation != KEVENT_HANDLE_GENERATION(handle))
		return NULL;
	return k;
}

static const struct kevent_source_ops kevent_user_ops = {};

static const struct kevent_source_ops *const kevent_sources[] = {
	[KEVENT_SOURCE_SOCKET] = &kevent_socket_ops,
	[KEVENT_SOURCE_POLL] = &kevent_poll_ops,
	[KEVENT_SOURCE_INODE] = &kevent_inode_ops,
	[KEVENT_SOURCE_TIMER] = &kevent_timer_ops,
	[KEVENT_SOURCE_SIGNAL] = &kevent_signal_ops,
	[KEVENT_SOURCE_USER] = &kevent_user_ops,
};

/*
 * Ends an interest. After it nothing is written for it, and nothing of it is
 * used. Context: process, u->mutex held or the queue being freed.
 */
void kevent_remove(struct kevent *k)
{
	struct kevent_user *u = k->user;

	spin_lock_irq(&u->lock);
	k->state |= KEVENT_DEAD;
	if (!list_empty(&k->ready)) {
		list_del_init(&k->ready);
		WRITE_ONCE(u->ready_count, u->ready_count - 1);
	}
	list_del_init(&k->seen);
	list_del_init(&k->test);
	spin_unlock_irq(&u->lock);

	if (k->ops->remove)
		k->ops->remove(k);
	xa_erase(&u->table, k->index);
	u->interests--;
	if (k->flags & KEVENT_LAST_CHECK)
		u->last_checks--;
	kevent_account_uncharge(u->account);
	kfree_rcu(k, rcu);
}

/*
 * Removes interests that have made their last entry. One that is tested again
 * when that entry is copied out, and the younger ones behind it, stay until then.
 * Context: process, u->mutex held.
 */
void kevent_reap(struct kevent_user *u)
{
	if (list_empty_careful(&u->reap))
		return;
	for (;;) {
		struct kevent *k;

		spin_lock_irq(&u->lock);
		k = list_first_entry_or_null(&u->reap, struct kevent, test);
		if (k && k->flags & KEVENT_LAST_CHECK && k->ops->test &&
		    kevent_is_unread(k))
			k = NULL;
		spin_unlock_irq(&u->lock);
		/* It stays: only the mutex's holder takes from that list. */
		if (!k)
			return;
		kevent_remove(k);
		cond_resched();
	}
}

/* ---- Changes ---- */

static bool kevent_flags_valid(const struct kevent_sqe *s, u8 source)
{
	u16 flags = s->flags & ~KEVENT_SKIP_SUCCESS;

	if (flags & ~KEVENT_INTEREST_FLAGS)
		return false;
	if (flags & KEVENT_ABSOLUTE && source != KEVENT_SOURCE_TIMER)
		return false;
	return !(flags & KEVENT_ONESHOT && flags & KEVENT_DISPATCH);
}

static bool kevent_events_valid(const struct kevent_source_ops *ops, u32 events)
{
	if (events & ~ops->events)
		return false;
	/* None is enough where some are reported unasked. */
	return events || !ops->events || ops->forced;
}

static bool kevent_arguments_valid(const struct kevent_sqe *s, u8 source)
{
	if (source != KEVENT_SOURCE_TIMER && (s->arg[0] || s->arg[1]))
		return false;
	return !s->arg[2] && !s->arg[3];
}

/* Tests the source and tells what it and a callback meanwhile have found. */
static int kevent_begin(struct kevent *k, u32 mask, struct kevent_sqe *s,
			bool in_ring)
{
	bool answer = !in_ring && !(k->flags & KEVENT_ALWAYS_QUEUE);

	return kevent_settle(k, mask, answer, &s->events) ? KEVENT_READY : 0;
}

static int kevent_add(struct kevent_user *u, struct kevent_sqe *s, bool in_ring)
{
	const struct kevent_source_ops *ops = NULL;
	struct kevent *k;
	int r;

	if (s->source < ARRAY_SIZE(kevent_sources))
		ops = kevent_sources[s->source];
	if (!ops || s->handle || s->result ||
	    !kevent_flags_valid(s, s->source) ||
	    !kevent_events_valid(ops, s->events) ||
	    !kevent_arguments_valid(s, s->source) ||
	    (s->source == KEVENT_SOURCE_USER && s->fd) ||
	    (ops->check && !ops->check(s)))
		return -EINVAL;
	if (u->interests >= u->max_interests)
		return -ENOSPC;
	if (!kevent_account_charge(u->account))
		return -ENOSPC;
	k = kzalloc(sizeof(*k), GFP_KERNEL_ACCOUNT);
	if (!k) {
		r = -ENOMEM;
		goto limit;
	}
	k->user = u;
	k->ops = ops;
	k->user_data = s->user_data;
	k->events = s->events | ops->forced;
	k->flags = s->flags & KEVENT_INTEREST_FLAGS;
	k->source = s->source;
	k->state = KEVENT_ADDING;
	if (k->flags & KEVENT_DISABLED)
		k->state |= KEVENT_OFF;
	if (++u->generation == 0)
		u->generation = 1;
	k->generation = u->generation;
	INIT_LIST_HEAD(&k->ready);
	INIT_LIST_HEAD(&k->seen);
	INIT_LIST_HEAD(&k->test);
	r = xa_alloc(&u->table, &k->index, k, XA_LIMIT(0, u->max_interests - 1),
		     GFP_KERNEL_ACCOUNT);
	if (r) {
		r = r == -EBUSY ? -ENOSPC : r;
		goto table;
	}
	u->interests++;
	if (k->flags & KEVENT_LAST_CHECK)
		u->last_checks++;
	r = ops->add ? ops->add(k, s) : 0;
	if (r < 0) {
		kevent_remove(k);
		return r;
	}
	s->handle = (u64)k->generation << 32 | k->index;
	return kevent_begin(k, r, s, in_ring);
table:
	kfree(k);
limit:
	kevent_account_uncharge(u->account);
	return r;
}

/*
 * Forgets readiness that has been noticed and not told: a change makes it void,
 * and a test finds it again. What cannot be found again, and unread entries,
 * stay. False if the interest has just made its last entry.
 * Context: process, u->mutex held.
 */
static bool kevent_quiet(struct kevent *k, u8 set, u8 clear)
{
	struct kevent_user *u = k->user;
	bool alive;

	spin_lock_irq(&u->lock);
	alive = !(k->state & KEVENT_FINISHED);
	if (alive) {
		k->state = (k->state & ~(clear | KEVENT_DISPATCHED)) | set;
		if (!list_empty(&k->ready) && k->ops->test) {
			list_del_init(&k->ready);
			WRITE_ONCE(u->ready_count, u->ready_count - 1);
		}
		list_del_init(&k->seen);
		list_del_init(&k->test);
	}
	spin_unlock_irq(&u->lock);
	return alive;
}

static int kevent_modify(struct kevent *k, struct kevent_sqe *s, bool in_ring)
{
	struct kevent_user *u = k->user;
	u16 flags = s->flags & KEVENT_INTEREST_FLAGS;
	int r;

	if (!kevent_flags_valid(s, k->source) ||
	    !kevent_events_valid(k->ops, s->events) ||
	    !kevent_arguments_valid(s, k->source) || s->source || s->fd ||
	    s->result)
		return -EINVAL;
	if (k->source == KEVENT_SOURCE_INODE && s->events & ~k->inode.mask)
		return -EINVAL;
	if (k->ops->check && !k->ops->check(s))
		return -EINVAL;
	if (!kevent_quiet(k, KEVENT_ADDING, 0))
		return -ENOENT;
	spin_lock_irq(&u->lock);
	u->last_checks += !!(flags & KEVENT_LAST_CHECK);
	u->last_checks -= !!(k->flags & KEVENT_LAST_CHECK);
	k->flags = flags;
	k->user_data = s->user_data;
	WRITE_ONCE(k->events, s->events | k->ops->forced);
	if (flags & KEVENT_DISABLED)
		k->state |= KEVENT_OFF;
	else
		k->state &= ~KEVENT_OFF;
	spin_unlock_irq(&u->lock);
	if (k->ops->modify)
		k->ops->modify(k, s);
	r = k->ops->test ? k->ops->test(k) : 0;
	return kevent_begin(k, r, s, in_ring);
}

static int kevent_enable(struct kevent *k, struct kevent_sqe *s, bool in_ring)
{
	if (!kevent_quiet(k, KEVENT_ADDING, KEVENT_OFF))
		return -ENOENT;
	if (k->source == KEVENT_SOURCE_TIMER && k->timer.stopped)
		kevent_timer_resume(k);
	if (k->source == KEVENT_SOURCE_SIGNAL)
		kevent_signal_look(k->user);
	return kevent_begin(k, k->ops->test ? k->ops->test(k) : 0, s, in_ring);
}

static int kevent_ready(struct kevent *k, const struct kevent_sqe *s)
{
	struct kevent_event event = { .data = { s->arg[0], 1 } };

	if (k->source != KEVENT_SOURCE_USER)
		return -EINVAL;
	kevent_deliver(k, &event);
	return 0;
}

static bool kevent_only_handle(const struct kevent_sqe *s)
{
	return !s->source && !(s->flags & ~KEVENT_SKIP_SUCCESS) && !s->fd &&
	       !s->events && !s->result && !s->arg[1] && !s->arg[2] &&
	       !s->arg[3] && (!s->arg[0] || s->opcode == KEVENT_OP_READY);
}

/*
 * Makes a change and sets its result, and handle and events where that is due.
 * `in_ring`: nobody will read `events`, so readiness goes into the ring.
 * Context: process, u->mutex held.
 */
void kevent_change(struct kevent_user *u, struct kevent_sqe *s, bool in_ring)
{
	struct kevent *k = NULL;

	if (s->flags & KEVENT_SKIP_SUCCESS && !in_ring) {
		s->result = -EINVAL;
		return;
	}
	kevent_reap(u);
	switch (s->opcode) {
	case KEVENT_OP_ADD:
		s->result = kevent_add(u, s, in_ring);
		return;
	case KEVENT_OP_MODIFY:
		break;
	case KEVENT_OP_REMOVE:
	case KEVENT_OP_DISABLE:
	case KEVENT_OP_ENABLE:
	case KEVENT_OP_READY:
		if (kevent_only_handle(s))
			break;
		s->result = -EINVAL;
		return;
	case KEVENT_OP_NOP:
		s->result = kevent_only_handle(s) && !s->handle ? 0 : -EINVAL;
		return;
	case KEVENT_OP_ACCEPT ... KEVENT_OP_CANCEL:
		s->result = -EOPNOTSUPP;
		return;
	default:
		s->result = -EINVAL;
		return;
	}
	k = kevent_find(u, s->handle);
	if (k && READ_ONCE(k->state) & KEVENT_FINISHED) {
		/* From now on its last entry stands, for the user knows. */
		kevent_remove(k);
		k = NULL;
	}
	if (!k) {
		s->result = -ENOENT;
		return;
	}
	s->result = 0;
	switch (s->opcode) {
	case KEVENT_OP_MODIFY:
		s->result = kevent_modify(k, s, in_ring);
		break;
	case KEVENT_OP_REMOVE:
		kevent_remove(k);
		break;
	case KEVENT_OP_DISABLE:
		if (!kevent_quiet(k, KEVENT_OFF, 0))
			s->result = -ENOENT;
		break;
	case KEVENT_OP_ENABLE:
		s->result = kevent_enable(k, s, in_ring);
		break;
	case KEVENT_OP_READY:
		s->result = kevent_ready(k, s);
		break;
	}
}
