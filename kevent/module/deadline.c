// SPDX-License-Identifier: GPL-2.0-only
/*
 * Deadlines of waits. A loop waits again and again until some time that is far away,
 * and is nearly always woken before: to start a timer and to cancel it is much of
 * what its waiting costs. So a queue has a timer of its own, the alarm, which one
 * waiter at a time uses, and which goes on when he has been woken early. When it
 * rings too soon for whoever uses it by then it is set anew; when nobody does, it
 * rests. Who waits beside him, or by another clock than CLOCK_MONOTONIC, has a timer
 * for this one wait.
 */
#include <linux/hrtimer.h>
#include <linux/overflow.h>
#include <linux/sched/rt.h>
#include <linux/time_namespace.h>

#include "core.h"

/*
 * A time of the caller's clock as a time of the kernel's: the clocks of a time
 * namespace are ahead, or behind. Context: process, the caller.
 */
s64 kevent_host_time(clockid_t clock, s64 ns)
{
	struct timespec64 ahead = {};
	s64 result;

	if (clock == CLOCK_MONOTONIC)
		timens_add_monotonic(&ahead);
	else if (clock == CLOCK_BOOTTIME)
		timens_add_boottime(&ahead);
	if (check_sub_overflow(ns, timespec64_to_ns(&ahead), &result))
		return KTIME_MAX;
	return max(result, 0LL);
}

/* Context: u->alarm_lock held, interrupts off. */
static void kevent_alarm_set(struct kevent_user *u,
			     const struct kevent_deadline *d)
{
	u->alarm_by = ktime_add_safe(d->until, d->slack);
	hrtimer_start_range_ns(&u->alarm, d->until, d->slack, HRTIMER_MODE_ABS);
}

/* Context: hard interrupt; softirq with PREEMPT_RT. */
static enum hrtimer_restart kevent_alarm_rings(struct hrtimer *timer)
{
	struct kevent_user *u = container_of(timer, struct kevent_user, alarm);
	struct kevent_deadline *d;
	unsigned long flags;

	spin_lock_irqsave(&u->alarm_lock, flags);
	u->alarm_by = KTIME_MAX;
	d = u->alarm_user;
	if (d && ktime_get() < d->until) {
		kevent_alarm_set(u, d);
	} else if (d) {
		WRITE_ONCE(d->late, true);
		wake_up_process(d->task);
	}
	spin_unlock_irqrestore(&u->alarm_lock, flags);
	/* It may have been started meanwhile, here or elsewhere. */
	return HRTIMER_NORESTART;
}

void kevent_alarm_init(struct kevent_user *u)
{
	spin_lock_init(&u->alarm_lock);
	hrtimer_init(&u->alarm, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
	u->alarm.function = kevent_alarm_rings;
	u->alarm_by = KTIME_MAX;
}

/* Context: process; nobody waits any more. */
void kevent_alarm_exit(struct kevent_user *u)
{
	hrtimer_cancel(&u->alarm);
}

/* False: somebody else has it. Context: process. */
static bool kevent_alarm_take(struct kevent_user *u, struct kevent_deadline *d)
{
	bool taken;

	spin_lock_irq(&u->alarm_lock);
	taken = !u->alarm_user;
	if (taken) {
		u->alarm_user = d;
		if (ktime_add_safe(d->until, d->slack) < u->alarm_by)
			kevent_alarm_set(u, d);
	}
	spin_unlock_irq(&u->alarm_lock);
	return taken;
}

/*
 * Begins to count to `ns` on `clock`; negative: for ever. This thread is woken then,
 * if it sleeps. Context: process; kevent_deadline_end() must follow.
 */
void kevent_deadline_begin(struct kevent_user *u, struct kevent_deadline *d,
			   s64 ns, clockid_t clock)
{
	d->kind = KEVENT_DEADLINE_NONE;
	d->late = false;
	if (ns < 0)
		return;
	d->until = ns;
	d->slack = current->timer_slack_ns;
	d->task = current;
	/* With PREEMPT_RT a real-time thread's own timer rings in hard interrupt. */
	if (clock == CLOCK_MONOTONIC &&
	    !(IS_ENABLED(CONFIG_PREEMPT_RT) && rt_task(current)) &&
	    kevent_alarm_take(u, d)) {
		d->kind = KEVENT_DEADLINE_ALARM;
		return;
	}
	d->kind = KEVENT_DEADLINE_OWN;
	hrtimer_init_sleeper_on_stack(&d->sleeper, clock, HRTIMER_MODE_ABS);
	hrtimer_set_expires_range_ns(&d->sleeper.timer, ns, d->slack);
	hrtimer_sleeper_start_expires(&d->sleeper, HRTIMER_MODE_ABS);
}

bool kevent_deadline_passed(const struct kevent_deadline *d)
{
	return d->kind == KEVENT_DEADLINE_OWN ? !READ_ONCE(d->sleeper.task) :
						READ_ONCE(d->late);
}

/* Context: process. */
void kevent_deadline_end(struct kevent_user *u, struct kevent_deadline *d)
{
	if (d->kind == KEVENT_DEADLINE_ALARM) {
		spin_lock_irq(&u->alarm_lock);
		u->alarm_user = NULL;
		spin_unlock_irq(&u->alarm_lock);
	} else if (d->kind == KEVENT_DEADLINE_OWN) {
		hrtimer_cancel(&d->sleeper.timer);
		destroy_hrtimer_on_stack(&d->sleeper.timer);
	}
}
