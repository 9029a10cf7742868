// SPDX-License-Identifier: GPL-2.0-only
/* Timers, each an hrtimer of its own. */
#include <linux/hrtimer.h>

#include "core.h"

/*
 * A period goes on only while its entries are read, as timerfd's does: nobody
 * can keep the machine busy with timers that he does not look at. A timer that
 * has stopped goes on with the KEVENT_ENTER after its entry was read; what it
 * missed is counted.
 *
 * Context: soft interrupt.
 */
static enum hrtimer_restart kevent_timer_fired(struct hrtimer *timer)
{
	struct kevent *k = container_of(timer, struct kevent, timer.timer);
	struct kevent_event event = { .data = { 1 } };

	if (!k->timer.period) {
		kevent_deliver(k, &event);
		return HRTIMER_NORESTART;
	}
	if (kevent_timer_must_stop(k))
		return HRTIMER_NORESTART;
	event.data[0] = hrtimer_forward_now(timer, k->timer.period);
	kevent_deliver(k, &event);
	return HRTIMER_RESTART;
}

/* Context: process, user->mutex held; the timer has stopped. */
void kevent_timer_resume(struct kevent *k)
{
	struct kevent_event event = {};

	k->timer.stopped = false;
	event.data[0] = hrtimer_forward_now(&k->timer.timer, k->timer.period);
	if (event.data[0])
		kevent_deliver(k, &event);
	hrtimer_start_expires(&k->timer.timer, HRTIMER_MODE_ABS_SOFT);
}

static bool kevent_timer_check(const struct kevent_sqe *s)
{
	return s->arg[0] <= KTIME_MAX && s->arg[1] <= KTIME_MAX &&
	       (!s->arg[1] || s->arg[1] >= KEVENT_TIMER_MIN_NS);
}

/*
 * In soft interrupts: with many timers of one instant others get their turn. A
 * relative time is none of day: it does not move when the clock is set.
 */
static void kevent_timer_start(struct kevent *k, const struct kevent_sqe *s)
{
	const enum hrtimer_mode mode = s->flags & KEVENT_ABSOLUTE ?
					       HRTIMER_MODE_ABS_SOFT :
					       HRTIMER_MODE_REL_SOFT;

	hrtimer_init(&k->timer.timer, k->timer.clock, mode);
	k->timer.timer.function = kevent_timer_fired;
	k->timer.period = s->arg[1];
	k->timer.stopped = false;
	hrtimer_start(&k->timer.timer,
		      s->flags & KEVENT_ABSOLUTE ?
			      kevent_host_time(k->timer.clock, s->arg[0]) :
			      s->arg[0],
		      mode);
}

static int kevent_timer_add(struct kevent *k, const struct kevent_sqe *s)
{
	switch (s->fd) {
	case CLOCK_MONOTONIC:
	case CLOCK_REALTIME:
	case CLOCK_BOOTTIME:
		break;
	default:
		return -EINVAL;
	}
	k->timer.clock = s->fd;
	kevent_timer_start(k, s);
	return 0;
}

static void kevent_timer_modify(struct kevent *k, const struct kevent_sqe *s)
{
	struct kevent_user *u = k->user;

	hrtimer_cancel(&k->timer.timer);
	/* What the old one did meanwhile is not told as the new one's. */
	spin_lock_irq(&u->lock);
	k->state &= ~KEVENT_FIRED;
	list_del_init(&k->seen);
	spin_unlock_irq(&u->lock);
	kevent_timer_start(k, s);
}

static void kevent_timer_remove(struct kevent *k)
{
	/* Not started if it was refused. */
	if (k->timer.timer.function)
		hrtimer_cancel(&k->timer.timer);
}

const struct kevent_source_ops kevent_timer_ops = {
	.check = kevent_timer_check,
	.add = kevent_timer_add,
	.modify = kevent_timer_modify,
	.remove = kevent_timer_remove,
};
