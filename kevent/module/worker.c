// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is done for a queue while nobody is in its KEVENT_ENTER. A worker waits for the
 * locks of the sockets and for the queue's mutex, and a thread of the user may keep
 * these for as long as he likes: while it receives where a page does not come
 * (userfaultfd(2), a mapping of FUSE). Workers look at files by ->poll as well, which
 * may hang. All users share the workqueue, so each has but a part of it: works beyond
 * it wait for one of his own to end. (Who has many user ids has many parts.)
 */
#include "core.h"

#define KEVENT_WORKERS	32	/* of one user, at a time */
#define KEVENT_ALL_WORKERS 256

static struct workqueue_struct *kevent_workqueue;

/*
 * May it go on? If not it waits, in its turn, for one of its user's to end.
 * Context: worker.
 */
static bool kevent_worker_begin(struct kevent_work *work)
{
	struct kevent_account *account = work->user->account;
	bool go = true;

	spin_lock(&account->works_lock);
	if (work->granted) {
		work->granted = false;
	} else if (account->works < KEVENT_WORKERS) {
		account->works++;
		list_del_init(&work->waiting);
	} else {
		go = false;
		if (!work->stopped && list_empty(&work->waiting))
			list_add_tail(&work->waiting, &account->waiting_works);
	}
	spin_unlock(&account->works_lock);
	return go;
}

/* Hands on the place of a worker. Context: process, works_lock held. */
static void kevent_worker_pass(struct kevent_account *account)
{
	struct kevent_work *next =
		list_first_entry_or_null(&account->waiting_works,
					 struct kevent_work, waiting);

	if (!next) {
		account->works--;
		return;
	}
	list_del_init(&next->waiting);
	next->granted = true;
	kevent_work_queue(next, 0);
}

/* Context: worker. */
static void kevent_worker(struct work_struct *w)
{
	struct kevent_work *work =
		container_of(w, struct kevent_work, work.work);

	if (!kevent_worker_begin(work))
		return;
	work->function(work->user);
	/* The queue is there still: its release waits for us. */
	spin_lock(&work->user->account->works_lock);
	kevent_worker_pass(work->user->account);
	spin_unlock(&work->user->account->works_lock);
}

void kevent_work_init(struct kevent_work *work, struct kevent_user *u,
		      void (*function)(struct kevent_user *u))
{
	INIT_DELAYED_WORK(&work->work, kevent_worker);
	INIT_LIST_HEAD(&work->waiting);
	work->user = u;
	work->function = function;
}

/* Has it done so many jiffies from now, or when it is queued for. Context: any. */
void kevent_work_queue(struct kevent_work *work, unsigned long delay)
{
	queue_delayed_work(kevent_workqueue, &work->work, delay);
}

/* Has it done now, even if it is queued for later. Context: any. */
void kevent_work_hurry(struct kevent_work *work)
{
	mod_delayed_work(kevent_workqueue, &work->work, 0);
}

/*
 * Neither runs nor will run when it returns, if nobody but itself queues it.
 * Context: process, no locks.
 */
void kevent_work_stop(struct kevent_work *work)
{
	struct kevent_account *account = work->user->account;

	spin_lock(&account->works_lock);
	work->stopped = true;
	list_del_init(&work->waiting);
	spin_unlock(&account->works_lock);
	cancel_delayed_work_sync(&work->work);
	spin_lock(&account->works_lock);
	if (work->granted) {
		work->granted = false;
		kevent_worker_pass(account);
	}
	spin_unlock(&account->works_lock);
}

int kevent_work_create(void)
{
	kevent_workqueue = alloc_workqueue("kevent", WQ_UNBOUND,
					   KEVENT_ALL_WORKERS);
	return kevent_workqueue ? 0 : -ENOMEM;
}

void kevent_work_destroy(void)
{
	destroy_workqueue(kevent_workqueue);
}
