// SPDX-License-Identifier: GPL-2.0-only
/*
 * Signals, as signalfd(2) has them: the process is told that one is pending, and
 * KEVENT_ENTER takes it, in the context of the process.
 */
#include <linux/sched/signal.h>
#include <linux/signal.h>

#include "compat.h"
#include "core.h"

/* Current's own does not go away. */
static struct sighand_struct *kevent_sighand(void)
{
	return rcu_dereference_protected(current->sighand, true);
}

/*
 * A signal was queued, which one is not said.
 * Context: any; siglock and the lock of sighand->signalfd_wqh held.
 */
static int kevent_signal_woken(wait_queue_entry_t *wait, unsigned int mode,
			       int sync, void *key)
{
	struct kevent_hook *hook = container_of(wait, struct kevent_hook, wait);
	struct kevent_user *u = hook->k->user;
	unsigned long flags;

	if (key_to_poll(key) & POLLFREE) {
		list_del_init(&wait->entry);
		/* Pairs with kevent_hook_remove(). */
		smp_store_release(&hook->head, NULL);
		return 1;
	}
	spin_lock_irqsave(&u->lock, flags);
	u->signals_pending = true;
	u->news++;
	kevent_set_flag(u, KEVENT_RING_PENDING);
	spin_unlock_irqrestore(&u->lock, flags);
	/* All: it may be for one thread, and only that one can take it. */
	kevent_wake(u, true);
	return 1;
}

/* Has everybody look for signals. Context: process. */
void kevent_signal_look(struct kevent_user *u)
{
	spin_lock_irq(&u->lock);
	u->signals_pending = true;
	u->news++;
	kevent_set_flag(u, KEVENT_RING_PENDING);
	spin_unlock_irq(&u->lock);
	kevent_wake(u, true);
}

static int kevent_signal_add(struct kevent *k, const struct kevent_sqe *s)
{
	if (s->fd < 1 || s->fd > _NSIG || s->fd == SIGKILL || s->fd == SIGSTOP)
		return -EINVAL;
	k->signal.signo = s->fd;
	list_add_tail(&k->signal.node, &k->user->signals);
	kevent_hook_add(&k->signal.hook, k, &kevent_sighand()->signalfd_wqh,
			kevent_signal_woken);
	/* It may be pending already. */
	kevent_signal_look(k->user);
	return 0;
}

static void kevent_signal_modify(struct kevent *k, const struct kevent_sqe *s)
{
	kevent_signal_look(k->user);
}

static void kevent_signal_remove(struct kevent *k)
{
	/* Refused? */
	if (!k->signal.signo)
		return;
	list_del_init(&k->signal.node);
	kevent_hook_remove(&k->signal.hook);
}

const struct kevent_source_ops kevent_signal_ops = {
	.add = kevent_signal_add,
	.modify = kevent_signal_modify,
	.remove = kevent_signal_remove,
};

static void kevent_signal_tell(struct kevent *k, const kernel_siginfo_t *info)
{
	struct kevent_event event = {
		.events = info->si_signo,
		.result = info->si_code,
	};
	bool sender;

	switch (info->si_code) {
	case SI_USER:
	case SI_TKILL:
	case SI_QUEUE:
	case SI_MESGQ:
		sender = true;
		break;
	default:
		sender = info->si_signo == SIGCHLD;
		break;
	}
	if (sender)
		event.data[0] = (u64)(u32)info->si_pid << 32 |
				(u32)info->si_uid;
	if (info->si_code == SI_QUEUE || info->si_code == SI_TIMER ||
	    info->si_code == SI_MESGQ)
		event.data[1] = (unsigned long)info->si_ptr;
	kevent_deliver(k, &event);
}

/*
 * Takes pending signals while there is room for their entries; the others stay
 * where they are. A process that shares the memory and not the signal handlers
 * has signals of its own. Context: process, u->mutex held.
 */
void kevent_collect_signals(struct kevent_user *u)
{
	struct kevent *k;

	if (current->mm != u->mm)
		return;
	spin_lock_irq(&u->lock);
	u->signals_pending = false;
	spin_unlock_irq(&u->lock);

	list_for_each_entry(k, &u->signals, signal.node) {
		for (;;) {
			kernel_siginfo_t info;
			sigset_t mask;
			bool full, off;
			int signo;

			spin_lock_irq(&u->lock);
			kevent_flush(u);
			full = !list_empty(&u->ready) ||
			       kevent_unread(u) >= u->cq_entries;
			off = k->state & (KEVENT_OFF | KEVENT_FINISHED) ||
			      k->signal.hook.head !=
				      &kevent_sighand()->signalfd_wqh;
			if (full)
				u->signals_pending = true;
			spin_unlock_irq(&u->lock);
			if (full)
				return;
			if (off)
				break;
			sigfillset(&mask);
			sigdelset(&mask, k->signal.signo);
			spin_lock_irq(&kevent_sighand()->siglock);
			signo = kevent_dequeue_signal(&mask, &info);
			spin_unlock_irq(&kevent_sighand()->siglock);
			if (!signo)
				break;
			kevent_signal_tell(k, &info);
		}
	}
}
