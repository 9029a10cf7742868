// SPDX-License-Identifier: GPL-2.0-only
/*
 * Entries: written by whoever notices the event, in whatever context that is;
 * counted; waited for.
 */
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "core.h"

/*
 * Entries that the user has not read. More than fit, if the user wrote nonsense
 * into cq_head: then nothing is written until it is right again.
 */
u32 kevent_unread(const struct kevent_user *u)
{
	/* Pairs with the user's release, after he has copied the entries. */
	return (u32)READ_ONCE(u->tail) - smp_load_acquire(&u->ring->cq_head);
}

/* What a waiter may count on. Any context. */
u32 kevent_available(const struct kevent_user *u)
{
	u32 unread = kevent_unread(u);

	if (unread > u->cq_entries)
		unread = u->cq_entries;
	return unread + READ_ONCE(u->ready_count);
}

/* Context: u->lock held. */
bool kevent_is_unread(const struct kevent *k)
{
	const struct kevent_user *u = k->user;

	return k->position && u->tail - (k->position - 1) <= kevent_unread(u);
}

/*
 * Wakes those that poll(2) the queue. They may do anything from there, signal the
 * very source that woke us included (an eventfd by aio, say): so this has a
 * context of its own, in which nobody's lock is held.
 */
void kevent_poll_work(struct irq_work *work)
{
	struct kevent_user *u =
		container_of(work, struct kevent_user, poll_work);

	wake_up_poll(&u->poll_wait, EPOLLIN | EPOLLRDNORM);
}

/* Returns whether somebody is in KEVENT_ENTER. Context: any. */
bool kevent_wake(struct kevent_user *u, bool all)
{
	bool waits;

	/* One barrier for both queues, instead of wq_has_sleeper() for each. */
	smp_mb();
	/* Pairs with prepare_to_wait_exclusive() in kevent_sleep(). */
	waits = waitqueue_active(&u->wait);
	if (waits) {
		u->wakeups++;	/* a statistic: it may miss some */
		if (all)
			wake_up_all(&u->wait);
		else
			wake_up(&u->wait);
	}
	/* Pairs with the barrier in kevent_poll(). */
	if (waitqueue_active(&u->poll_wait))
		irq_work_queue(&u->poll_work);
	return waits;
}

/* Shows a flag in the ring. Context: u->lock held. */
void kevent_set_flag(struct kevent_user *u, u32 flag)
{
	if (!(u->ring->flags & flag))
		WRITE_ONCE(u->ring->flags, u->ring->flags | flag);
}

/*
 * Is there anything that is not in the ring? A glance if u->lock is not held:
 * who adds something makes it known afterwards.
 */
bool kevent_something_waits(const struct kevent_user *u)
{
	return READ_ONCE(u->ready_count) || !list_empty(&u->seen) ||
	       !list_empty(&u->test) || !list_empty(&u->later) ||
	       READ_ONCE(u->signals_pending) || kevent_ops_wait(u);
}

static u32 kevent_ring_flags(const struct kevent_user *u)
{
	/* Nobody is told when the user makes room in the ring. */
	return (kevent_something_waits(u) || !list_empty(&u->stalled) ?
			KEVENT_RING_PENDING : 0) |
	       (READ_ONCE(u->starving) ? KEVENT_RING_STARVED : 0);
}

/* Sets or clears the ring's flags. Context: process. */
void kevent_note_flags(struct kevent_user *u)
{
	if (READ_ONCE(u->ring->flags) == kevent_ring_flags(u))
		return;
	spin_lock_irq(&u->lock);
	WRITE_ONCE(u->ring->flags, kevent_ring_flags(u));
	spin_unlock_irq(&u->lock);
}

/* Context: u->lock held. */
static bool kevent_ring_full(const struct kevent_user *u)
{
	return (u64)kevent_unread(u) + u->reserved >= u->cq_entries;
}

/* Could an entry be written now? A glance if u->lock is not held. */
bool kevent_has_room(const struct kevent_user *u)
{
	return !READ_ONCE(u->ready_count) && !kevent_ring_full(u);
}

/* The next free slot. Context: u->lock held, the ring not full. */
static struct kevent_entry *kevent_slot(struct kevent_user *u)
{
	struct kevent_entry *entry = &u->cq[u->tail & (u->cq_entries - 1)];

	entry->sequence = (u32)u->tail;
	entry->reserved = 0;
	entry->data[2] = 0;
	return entry;
}

/* Shows it to the user. Context: u->lock held. */
static void kevent_show(struct kevent_user *u)
{
	u64 tail = u->tail + 1;
	u32 unread;

	/* The entry's words before the tails that show it. */
	smp_store_release(&u->tail, tail);
	/* And for who reads the ring. */
	smp_store_release(&u->ring->cq_tail, (u32)tail);
	unread = (u32)tail - READ_ONCE(u->ring->cq_head);
	if (unread > u->high_water && unread <= u->cq_entries)
		u->high_water = unread;
}

/* Is this the interest's last entry? */
static bool kevent_is_last(const struct kevent *k,
			   const struct kevent_event *event)
{
	if (event->flags & KEVENT_ENTRY_BROKEN || k->flags & KEVENT_ONESHOT)
		return true;
	return k->source == KEVENT_SOURCE_TIMER && !k->timer.period;
}

/*
 * What an entry does to its interest, whether written or answered at once.
 * Context: u->lock held.
 */
static void kevent_after_entry(struct kevent *k,
			       const struct kevent_event *event)
{
	struct kevent_user *u = k->user;

	if (kevent_is_last(k, event)) {
		k->state |= KEVENT_FINISHED;
		list_del_init(&k->seen);
		list_move_tail(&k->test, &u->reap);
	} else if (k->flags & KEVENT_DISPATCH) {
		k->state |= KEVENT_OFF | KEVENT_DISPATCHED;
	}
}

/* Context: u->lock held, the ring not full. */
static void kevent_write_event(struct kevent *k,
			       const struct kevent_event *event)
{
	struct kevent_user *u = k->user;
	struct kevent_entry *entry = kevent_slot(u);

	entry->user_data = k->user_data;
	entry->handle = (u64)k->generation << 32 | k->index;
	entry->events = event->events;
	entry->source = k->source;
	entry->flags = event->flags |
		       (kevent_is_last(k, event) ? KEVENT_ENTRY_DONE :
						   KEVENT_ENTRY_MORE);
	entry->result = event->result;
	entry->data[0] = event->data[0];
	entry->data[1] = event->data[1];
	kevent_show(u);
	k->position = u->tail;
	k->last_events = event->events;
	kevent_after_entry(k, event);
	if (!(k->state & KEVENT_FINISHED) && kevent_is_level(k)) {
		list_move_tail(&k->seen, &u->seen);
		kevent_set_flag(u, KEVENT_RING_PENDING);
	}
}

/* Adds an event to one that has not been told. Context: u->lock held. */
static void kevent_merge(struct kevent *k, const struct kevent_event *event)
{
	struct kevent_event *late = &k->late;

	switch (k->source) {
	case KEVENT_SOURCE_TIMER:
		late->data[0] += event->data[0];
		break;
	case KEVENT_SOURCE_USER:
		late->data[0] = event->data[0];
		late->data[1] += event->data[1];
		break;
	case KEVENT_SOURCE_INODE:
		if (late->data[0] != event->data[0])
			late->data[0] = 0;
		if (late->data[1] != event->data[1])
			late->data[1] = 0;
		break;
	}
	late->events |= event->events;
	late->flags |= event->flags;
	if (event->result)
		late->result = event->result;
	if (!(event->flags & KEVENT_ENTRY_BROKEN) &&
	    k->source != KEVENT_SOURCE_TIMER)
		late->flags |= KEVENT_ENTRY_MERGED;
}

/*
 * The entry of an operation. `more`: it is not its last one.
 * Context: u->lock held, the ring not full.
 */
static void kevent_write_op(struct kevent_user *u, const struct kevent_op *op,
			    bool more)
{
	struct kevent_entry *entry = kevent_slot(u);

	entry->user_data = op->user_data;
	entry->handle = op->handle;
	entry->events = 0;
	entry->source = KEVENT_SOURCE_OPERATION;
	entry->flags = op->entry_flags |
		       (more ? KEVENT_ENTRY_MORE : KEVENT_ENTRY_DONE);
	entry->result = op->done;
	entry->data[0] = op->data[0];
	entry->data[1] = op->data[1];
	kevent_show(u);
}

/*
 * The last entry of `op`, behind those that wait for room. False if there is none:
 * then it is left on u->done, and with it the operation. Context: process.
 */
bool kevent_show_last(struct kevent_user *u, struct kevent_op *op)
{
	bool shown;

	spin_lock_irq(&u->lock);
	if (u->ready_count)
		kevent_flush(u);
	shown = !u->ready_count && !kevent_ring_full(u);
	if (shown) {
		kevent_write_op(u, op, false);
	} else {
		list_add_tail(&op->run, &u->done);
		u->done_count++;
		WRITE_ONCE(u->ready_count, u->ready_count + 1);
		u->deferred++;
		kevent_set_flag(u, KEVENT_RING_PENDING);
	}
	spin_unlock_irq(&u->lock);
	kevent_wake(u, false);
	return shown;
}

/*
 * An entry of `op`, its last one or not, after kevent_reserve_room().
 * Context: u->lock held.
 */
void kevent_fill_room(struct kevent_user *u, const struct kevent_op *op,
		      bool more)
{
	kevent_write_op(u, op, more);
	u->reserved--;
}

/* Another entry of `op`, after kevent_reserve(). Context: process. */
void kevent_show_reserved(struct kevent_user *u, struct kevent_op *op)
{
	spin_lock_irq(&u->lock);
	kevent_fill_room(u, op, true);
	spin_unlock_irq(&u->lock);
	kevent_wake(u, false);
}

/* Gives the room of kevent_reserve_room() back. Context: u->lock held. */
void kevent_leave_room(struct kevent_user *u)
{
	u->reserved--;
	if (u->ready_count)
		kevent_flush(u);
}

/* Gives the room of kevent_reserve() back. Context: process. */
void kevent_unreserve(struct kevent_user *u)
{
	spin_lock_irq(&u->lock);
	kevent_leave_room(u);
	spin_unlock_irq(&u->lock);
}

/* Writes what waits for room. Context: u->lock held. */
void kevent_flush(struct kevent_user *u)
{
	while (!list_empty(&u->done)) {
		struct kevent_op *op =
			list_first_entry(&u->done, struct kevent_op, run);

		if (kevent_ring_full(u))
			return;
		kevent_write_op(u, op, false);
		list_del_init(&op->run);
		u->done_count--;
		WRITE_ONCE(u->ready_count, u->ready_count - 1);
		kevent_op_free(op);
	}
	while (!list_empty(&u->ready) && !kevent_ring_full(u)) {
		struct kevent *k =
			list_first_entry(&u->ready, struct kevent, ready);

		list_del_init(&k->ready);
		WRITE_ONCE(u->ready_count, u->ready_count - 1);
		kevent_write_event(k, &k->late);
	}
}

/*
 * Makes an entry, or remembers that one is due. True if there is something new
 * for a waiter. Context: u->lock held.
 */
static bool kevent_queue(struct kevent *k, const struct kevent_event *event)
{
	struct kevent_user *u = k->user;
	const bool broken = event->flags & KEVENT_ENTRY_BROKEN;

	if (k->state & (KEVENT_DEAD | KEVENT_FINISHED))
		return false;
	if (!list_empty(&k->ready)) {
		kevent_merge(k, event);
		return false;
	}
	if (k->state & KEVENT_ADDING) {
		if (k->state & KEVENT_FIRED)
			kevent_merge(k, event);
		else
			k->late = *event;
		k->state |= KEVENT_FIRED;
		return false;
	}
	if (k->state & KEVENT_OFF && !broken)
		return false;
	if (!broken && !(k->flags & KEVENT_ONESHOT) && kevent_is_unread(k)) {
		/* The unread entry, or the test when it is read, tells it. */
		if (k->ops->test && (kevent_is_level(k) ||
				     !(event->events & ~k->last_events)))
			return false;
	}
	if (u->ready_count)
		kevent_flush(u);
	if (u->ready_count || kevent_ring_full(u)) {
		k->late = *event;
		list_add_tail(&k->ready, &u->ready);
		WRITE_ONCE(u->ready_count, u->ready_count + 1);
		u->deferred++;
		kevent_set_flag(u, KEVENT_RING_PENDING);
		return true;
	}
	kevent_write_event(k, event);
	return true;
}

/* Context: any, hard interrupts included; the locks of the source held. */
void kevent_deliver(struct kevent *k, const struct kevent_event *event)
{
	struct kevent_user *u = k->user;
	unsigned long flags;
	bool news, all;

	spin_lock_irqsave(&u->lock, flags);
	news = kevent_queue(k, event);
	all = k->flags & KEVENT_WAKE_ALL;
	spin_unlock_irqrestore(&u->lock, flags);
	if (news)
		kevent_wake(u, all);
}

/* Context: as kevent_deliver(). */
void kevent_deliver_events(struct kevent *k, u32 events)
{
	struct kevent_event event = { .events = events };

	kevent_deliver(k, &event);
}

/* The source is gone. Context: as kevent_deliver(). */
void kevent_break(struct kevent *k, int error)
{
	struct kevent_event event = {
		.flags = KEVENT_ENTRY_BROKEN,
		.result = error,
	};

	if (k->ops->test)
		event.events = KEVENT_HUP;
	kevent_deliver(k, &event);
}

/*
 * Something happened at the source, but the caller cannot tell what and must
 * not ask: has it tested soon, by a waiter if there is one, and by a worker.
 * Context: as kevent_deliver().
 */
void kevent_want_test(struct kevent *k)
{
	struct kevent_user *u = k->user;
	unsigned long flags;
	bool news = false;

	spin_lock_irqsave(&u->lock, flags);
	if (!(k->state & (KEVENT_DEAD | KEVENT_FINISHED | KEVENT_OFF)) &&
	    list_empty(&k->test)) {
		list_add_tail(&k->test, &u->test);
		kevent_set_flag(u, KEVENT_RING_PENDING);
		news = true;
	}
	spin_unlock_irqrestore(&u->lock, flags);
	if (!news)
		return;
	kevent_work_hurry(&u->test_work);
	kevent_wake(u, false);
}

/*
 * A test was not possible just now: it is tried again by the worker.
 * Context: process, user->mutex held.
 */
void kevent_test_later(struct kevent *k)
{
	struct kevent_user *u = k->user;

	spin_lock_irq(&u->lock);
	if (!(k->state & (KEVENT_DEAD | KEVENT_FINISHED | KEVENT_OFF))) {
		list_move_tail(&k->test, &u->later);
		kevent_set_flag(u, KEVENT_RING_PENDING);
		kevent_work_queue(&u->test_work, 1);
	}
	spin_unlock_irq(&u->lock);
}

/*
 * Would an expiration find the one before unread? Then the timer is left to
 * whoever looks at u->seen. Context: the timer's callback.
 */
bool kevent_timer_must_stop(struct kevent *k)
{
	struct kevent_user *u = k->user;
	unsigned long flags;
	bool stop;

	spin_lock_irqsave(&u->lock, flags);
	stop = k->state & (KEVENT_DEAD | KEVENT_FINISHED | KEVENT_OFF) ||
	       !list_empty(&k->ready) || kevent_is_unread(k);
	if (stop) {
		k->timer.stopped = true;
		if (!(k->state & (KEVENT_DEAD | KEVENT_FINISHED | KEVENT_OFF))) {
			list_move_tail(&k->seen, &u->seen);
			kevent_set_flag(u, KEVENT_RING_PENDING);
		}
	}
	spin_unlock_irqrestore(&u->lock, flags);
	return stop;
}

/*
 * Ends KEVENT_ADDING: tells what the test found (`mask`) and what happened
 * meanwhile. With `answer` readiness is not written into the ring: the result is
 * true, and `*events` what is ready.
 * Context: process, user->mutex held.
 */
bool kevent_settle(struct kevent *k, u32 mask, bool answer, u32 *events)
{
	struct kevent_user *u = k->user;
	struct kevent_event event = { .events = mask };
	bool fired, news = false, answered = false, all;

	spin_lock_irq(&u->lock);
	fired = k->state & KEVENT_FIRED;
	k->state &= ~(KEVENT_ADDING | KEVENT_FIRED);
	if (fired) {
		event = k->late;
		event.events |= mask;
	}
	if ((fired || mask) && (!(k->state & KEVENT_OFF) ||
				event.flags & KEVENT_ENTRY_BROKEN)) {
		if (answer && k->ops->test &&
		    !(event.flags & KEVENT_ENTRY_BROKEN)) {
			answered = true;
			*events = event.events;
			kevent_after_entry(k, &event);
			/* Told already: the next KEVENT_ENTER tests it. */
			if (!(k->state & KEVENT_FINISHED) &&
			    kevent_is_level(k)) {
				k->position = 0;
				list_move(&k->seen, &u->seen);
				kevent_set_flag(u, KEVENT_RING_PENDING);
			}
		} else {
			news = kevent_queue(k, &event);
		}
	}
	/* An unread entry of before the change still wants its test. */
	if (!(k->state & (KEVENT_FINISHED | KEVENT_OFF)) &&
	    kevent_is_level(k) && list_empty(&k->seen) &&
	    kevent_is_unread(k)) {
		list_add_tail(&k->seen, &u->seen);
		kevent_set_flag(u, KEVENT_RING_PENDING);
	}
	all = k->flags & KEVENT_WAKE_ALL;
	spin_unlock_irq(&u->lock);
	if (news)
		kevent_wake(u, all);
	return answered;
}

/*
 * Keeps room for one entry, before that which it tells is taken; false if there is
 * none. Context: u->lock held.
 */
bool kevent_reserve_room(struct kevent_user *u)
{
	if (u->ready_count)
		kevent_flush(u);
	if (u->ready_count || kevent_ring_full(u))
		return false;
	u->reserved++;
	return true;
}

/* The same. Context: process, user->mutex held. */
bool kevent_reserve(struct kevent_user *u)
{
	bool room;

	spin_lock_irq(&u->lock);
	room = kevent_reserve_room(u);
	spin_unlock_irq(&u->lock);
	return room;
}

/*
 * Writes the result of an element of the submission ring into the room kept for
 * it, or with NULL gives that back. Context: the same.
 */
void kevent_complete(struct kevent_user *u, const struct kevent_sqe *sqe)
{
	spin_lock_irq(&u->lock);
	if (sqe) {
		struct kevent_entry *entry = kevent_slot(u);

		entry->user_data = sqe->user_data;
		entry->handle = sqe->handle;
		entry->events = 0;
		entry->source = KEVENT_SOURCE_OPERATION;
		entry->flags = KEVENT_ENTRY_DONE;
		entry->result = sqe->result;
		entry->data[0] = 0;
		entry->data[1] = 0;
		kevent_show(u);
		u->reserved--;
	} else {
		kevent_leave_room(u);
	}
	spin_unlock_irq(&u->lock);
	kevent_wake(u, false);
}
