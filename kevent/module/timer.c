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
 * Context: hard interrupt (PREEMPT_RT: soft).
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
	hrtimer_restart(&k->timer.timer);
}

static bool kevent_times_valid(const struct kevent_sqe *s)
{
	return s->arg[0] <= KTIME_MAX && s->arg[1] <= KTIME_MAX &&
	       (!s->arg[1] || s->arg[1] >= KEVENT_TIMER_MIN_NS);
}

static void kevent_timer_start(struct kevent *k, const struct kevent_sqe *s)
{
	k->timer.period = s->arg[1];
	k->timer.stopped = false;
	hrtimer_start(&k->timer.timer, s->arg[0],
		      s->flags & KEVENT_ABSOLUTE ? HRTIMER_MODE_ABS :
						   HRTIMER_MODE_REL);
}

static int kevent_timer_add(struct kevent *k, const struct kevent_sqe *s)
{
	bool valid = kevent_times_valid(s);

	switch (s->fd) {
	case CLOCK_MONOTONIC:
	case CLOCK_REALTIME:
	case CLOCK_BOOTTIME:
		break;
	default:
		valid = false;
	}
	/* Also when it is refused: remove() cancels it. */
	hrtimer_init(&k->timer.timer, valid ? s->fd : CLOCK_MONOTONIC,
		     HRTIMER_MODE_ABS);
	k->timer.timer.function = kevent_timer_fired;
	if (!valid)
		return -EINVAL;
	kevent_timer_start(k, s);
	return 0;
}

static int kevent_timer_modify(struct kevent *k, const struct kevent_sqe *s)
{
	if (!kevent_times_valid(s))
		return -EINVAL;
	hrtimer_cancel(&k->timer.timer);
	kevent_timer_start(k, s);
	return 0;
}

static void kevent_timer_remove(struct kevent *k)
{
	hrtimer_cancel(&k->timer.timer);
}

const struct kevent_source_ops kevent_timer_ops = {
	.add = kevent_timer_add,
	.modify = kevent_timer_modify,
	.remove = kevent_timer_remove,
};
