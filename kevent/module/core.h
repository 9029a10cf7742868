/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The objects of the module.
 *
 * kevent_user	a queue: one open of /dev/kevent
 * kevent	an interest of one queue in one source
 * kevent_sock	what is known of one watched socket (poll.c); the storages of
 *		other sources are the kernel's own: wait queues, fsnotify marks
 * kevent_op	a pending operation of network AIO (op.c, submit.c)
 * kevent_pool	buffers of the user for what such operations receive (pool.c)
 *
 * Locks, outermost first:
 *	kevent_user.consume	mutex: copying entries out
 *	kevent_user.mutex	mutex: the table, changes, tests of sources
 *	inode lock, shared	of a Unix socket whose operation is tried
 *	kevent_sock_lock	spinlock (poll.c): the table of sockets
 *	kevent_read_lock	spinlock (sendfile.c): reads by workers
 *	kevent_user.copy_lock	spinlock, softirq (softirq.c): copying there
 *	locks of the source	held by the kernel around our callbacks
 *	kevent_user.lock	spinlock, irq-safe: the ring and all lists
 *	kevent_user.wait.lock	within wake-ups
 *	kevent_user.alarm_lock	spinlock, irq-safe (deadline.c); alone
 *	kevent_account.works_lock	spinlock (worker.c)
 * mmap_lock is taken below either mutex (page faults, accounting), never above.
 * Below copy_lock a source's lock is taken by ourselves: the socket's spinlock.
 *
 * Life of an interest: allocated and in the table under the mutex; removed in
 * two phases: KEVENT_DEAD under the lock, after which no callback writes; then
 * the source is unhooked, after which none runs; then it is freed by RCU.
 */
#ifndef _KEVENT_CORE_H
#define _KEVENT_CORE_H

#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/poll.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "../uapi/kevent.h"

struct kevent;
struct kevent_user;
struct kevent_sock;
struct kevent_mark;
struct kevent_read;
struct fsnotify_group;

/* What is written into an entry beside the interest's own words. */
struct kevent_event {
	u32 events;
	u16 flags;
	s64 result;
	u64 data[2];
};

/*
 * One wait queue that an interest sits in. `head` is NULL once the queue's
 * owner has freed it (POLLFREE).
 */
struct kevent_hook {
	wait_queue_entry_t wait;
	wait_queue_head_t *head;
	struct kevent *k;
	struct kevent_hook *next;
};

struct kevent_source_ops {
	/* Are a change's arguments right? Any context. May be NULL. */
	bool (*check)(const struct kevent_sqe *sqe);
	/*
	 * Hooks the source; the interest is in the table and KEVENT_ADDING.
	 * Returns a mask of what is ready, or a negative errno.
	 * Context: process, user->mutex held.
	 */
	int (*add)(struct kevent *k, const struct kevent_sqe *sqe);
	/* Takes new arguments, checked. Same context. May be NULL. */
	void (*modify)(struct kevent *k, const struct kevent_sqe *sqe);
	/* What is ready now, as a mask. Same context. NULL: has no state. */
	u32 (*test)(struct kevent *k);
	/*
	 * Unhooks: when it returns no callback runs or will run.
	 * Context: process, user->mutex held (or the queue is being freed).
	 */
	void (*remove)(struct kevent *k);
	u32 events;	/* what may be asked for */
	u32 forced;	/* what is reported unasked */
};

enum {
	KEVENT_ADDING	= 1u << 0,	/* being tested: events collect in `late` */
	KEVENT_OFF	= 1u << 1,	/* disabled */
	KEVENT_FINISHED	= 1u << 2,	/* its last entry is made */
	KEVENT_DEAD	= 1u << 3,	/* removed */
	KEVENT_FIRED	= 1u << 4,	/* `late` holds something */
	KEVENT_DISPATCHED = 1u << 6,	/* KEVENT_OFF by its last entry */
	KEVENT_OWNERS	= 1u << 5,	/* ->poll looks at current */
};

struct kevent {
	struct kevent_user *user;
	const struct kevent_source_ops *ops;
	u64 user_data;
	u32 index;
	u32 generation;
	u32 events;
	u16 flags;		/* KEVENT_EDGE ... */
	u8 source;

	/* Under user->lock from here. */
	u8 state;
	u32 last_events;	/* of its last entry */
	u64 position;		/* in the ring, of its last entry, plus 1; or 0 */
	struct kevent_event late; /* on the ready list, or KEVENT_ADDING */
	struct list_head ready;	/* user->ready: its entry found the ring full */
	struct list_head seen;	/* user->seen: look again when it is read */
	struct list_head test;	/* user->test or user->reap */

	union {
		struct {
			struct file *file;	/* held, or NULL for sockets */
			struct inode *inode;	/* held, of the socket */
			struct sock *sk;	/* held */
			struct kevent_sock *storage; /* kevent_sock_lock */
			struct list_head in_sock;
			struct kevent_hook hook[2];
			struct kevent_hook *more; /* those beyond two */
			unsigned int hooks;
		} poll;
		struct {
			struct hrtimer timer;
			clockid_t clock;
			ktime_t period;
			bool stopped;	/* user->lock; until its entry is read */
		} timer;
		struct {
			struct kevent_mark *mark;
			u32 mask;	/* what the mark was made for */
		} inode;
		struct {
			struct kevent_hook hook;
			struct list_head node;	/* user->signals, user->mutex */
			int signo;
		} signal;
	};
	struct rcu_head rcu;
};

struct kevent_op;
struct kevent_pool;

/* What one user has, in all queues. */
struct kevent_account {
	struct list_head node;
	kuid_t uid;
	unsigned int references;
	atomic_long_t interests;	/* and operations */
	unsigned int reads;		/* with workers; kevent_read_lock */
	struct list_head waiting_reads;	/* kevent_read.waiting; the same */
	spinlock_t works_lock;
	unsigned int works;		/* with workers; works_lock */
	struct list_head waiting_works;	/* kevent_work.waiting; the same */
};

/* What a worker does for a queue (worker.c). */
struct kevent_work {
	struct delayed_work work;
	struct kevent_user *user;
	void (*function)(struct kevent_user *u);
	struct list_head waiting; /* account->waiting_works; works_lock */
	bool granted;		/* works_lock: another one has left it its place */
	bool stopped;		/* works_lock */
};

#define KEVENT_LANES	2048	/* hash buckets of pending operations */

struct kevent_user {
	struct mutex mutex;		/* the table, changes, tests */
	struct mutex consume;		/* who copies entries out */
	struct mm_struct *mm;		/* the opener's, grabbed */
	struct kevent_account *account;
	struct xarray table;		/* index: interest */
	u32 generation;
	u32 max_interests;
	unsigned int interests;
	unsigned int last_checks;	/* of these, with KEVENT_LAST_CHECK */
	struct list_head signals;
	struct fsnotify_group *group;
	struct kevent_work test_work;
	struct irq_work poll_work;	/* wakes poll_wait */
	u32 sq_head;

	/* Operations; u->mutex. */
	fl_owner_t files;		/* the opener's table; only compared */
	/* kevent_op.lane, oldest first; one more of those without a socket */
	struct list_head *lanes;
	unsigned int ops;		/* without those on `done` */
	struct list_head spare;		/* kevent_op.run, to be used again */
	unsigned int spares;
	bool fresh;			/* the turn of some on `runnable` has come */
	unsigned int let_go;		/* files that nobody holds any more */
	unsigned int starving;		/* on the lists of its pools */
	struct list_head owners;	/* kevent_op.run: for threads of the submitter */
	struct kevent_pool *pools[KEVENT_MAX_POOLS];
	unsigned long pinned;		/* pages of these */
	struct kevent_work run_work;
	u64 worker_runs;

	/* Copying in softirq (softirq.c): held while an operation is dealt with. */
	spinlock_t copy_lock;
	struct tasklet_struct copy_tasklet;

	struct kevent_ring *ring;	/* set once, by KEVENT_SETUP */
	struct kevent_entry *cq;
	struct kevent_sqe *sq;
	u32 cq_entries;
	u32 sq_entries;
	unsigned long ring_bytes;

	spinlock_t lock ____cacheline_aligned_in_smp;
	u64 tail;			/* entries ever written */
	struct list_head ready;		/* wait for room in the ring */
	unsigned int ready_count;
	unsigned int reserved;		/* slots kept by kevent_reserve_room() */
	struct list_head seen;		/* to look at once their entry is read */
	struct list_head test;		/* something happened, unknown what */
	struct list_head later;		/* could not be tested just now */
	struct list_head reap;		/* finished, to be removed */
	struct list_head runnable;	/* kevent_op.run: its socket is ready */
	struct list_head arrived;	/* kevent_op.run: for the tasklet to copy */
	struct list_head stalled;	/* kevent_op.run: no room in the ring */
	struct list_head done;		/* kevent_op.run: wait for room */
	unsigned int done_count;	/* of these; also in ready_count */
	bool signals_pending;		/* since somebody last looked */
	/* How often each thread had to look for what is its own: signals, accepts. */
	unsigned int news;
	u64 deferred, wakeups, high_water, copied_pieces;

	/* A timer for one who waits (deadline.c); alarm_lock. */
	spinlock_t alarm_lock;
	struct hrtimer alarm;
	s64 alarm_by;			/* when it will have rung, KTIME_MAX: unset */
	struct kevent_deadline *alarm_user;

	wait_queue_head_t wait;		/* KEVENT_ENTER */
	wait_queue_head_t poll_wait;	/* poll(2) */
	struct rcu_head rcu;
};

/* Of one wait. */
struct kevent_deadline {
	enum {
		KEVENT_DEADLINE_NONE,
		KEVENT_DEADLINE_ALARM,	/* the queue's alarm tells */
		KEVENT_DEADLINE_OWN,	/* `sleeper` does */
	} kind;
	bool late;			/* it has passed, says the alarm */
	s64 until;			/* ns of its clock */
	u64 slack;			/* ns */
	struct task_struct *task;
	struct hrtimer_sleeper sleeper;
};

/* deadline.c */
s64 kevent_host_time(clockid_t clock, s64 ns);
void kevent_alarm_init(struct kevent_user *u);
void kevent_alarm_exit(struct kevent_user *u);
void kevent_deadline_begin(struct kevent_user *u, struct kevent_deadline *d,
			   s64 ns, clockid_t clock);
bool kevent_deadline_passed(const struct kevent_deadline *d);
void kevent_deadline_end(struct kevent_user *u, struct kevent_deadline *d);

/* ring.c */
void kevent_deliver(struct kevent *k, const struct kevent_event *event);
void kevent_deliver_events(struct kevent *k, u32 events);
void kevent_break(struct kevent *k, int error);
void kevent_want_test(struct kevent *k);
void kevent_test_later(struct kevent *k);
bool kevent_timer_must_stop(struct kevent *k);
bool kevent_settle(struct kevent *k, u32 mask, bool answer, u32 *events);
void kevent_flush(struct kevent_user *u);
bool kevent_something_waits(const struct kevent_user *u);
void kevent_note_flags(struct kevent_user *u);
bool kevent_wake(struct kevent_user *u, bool all);
void kevent_poll_work(struct irq_work *work);
bool kevent_reserve(struct kevent_user *u);
bool kevent_reserve_room(struct kevent_user *u);
void kevent_fill_room(struct kevent_user *u, const struct kevent_op *op,
		      bool more);
void kevent_leave_room(struct kevent_user *u);
void kevent_complete(struct kevent_user *u, const struct kevent_sqe *sqe);
u32 kevent_unread(const struct kevent_user *u);
u32 kevent_available(const struct kevent_user *u);
bool kevent_is_unread(const struct kevent *k);
bool kevent_show_last(struct kevent_user *u, struct kevent_op *op);
void kevent_show_reserved(struct kevent_user *u, struct kevent_op *op);
void kevent_unreserve(struct kevent_user *u);
bool kevent_has_room(const struct kevent_user *u);
void kevent_set_flag(struct kevent_user *u, u32 flag);

/* control.c */
void kevent_change(struct kevent_user *u, struct kevent_sqe *sqe, bool in_ring);
void kevent_remove(struct kevent *k);
void kevent_reap(struct kevent_user *u);
struct kevent *kevent_find(struct kevent_user *u, u64 handle);
struct kevent_account *kevent_account_get(void);
void kevent_account_hold(struct kevent_account *account);
void kevent_account_put(struct kevent_account *account);
long kevent_account_interests(const struct kevent_account *account);
bool kevent_account_charge(struct kevent_account *account);
void kevent_account_uncharge(struct kevent_account *account);

/* enter.c */
long kevent_control_call(struct kevent_user *u, void __user *argument);
long kevent_enter_call(struct kevent_user *u, void __user *argument);
void kevent_test_heard(struct kevent_user *u);
void kevent_test_all(struct kevent_user *u);
int kevent_copy_struct(void *to, size_t size, size_t least,
		       const void __user *from, u32 *given);

/* worker.c */
void kevent_work_init(struct kevent_work *work, struct kevent_user *u,
		      void (*function)(struct kevent_user *u));
void kevent_work_queue(struct kevent_work *work, unsigned long delay);
void kevent_work_hurry(struct kevent_work *work);
void kevent_work_stop(struct kevent_work *work);
int kevent_work_create(void);
void kevent_work_destroy(void);

/* op.c */

/* Linked operations on their way out of the submission ring. */
struct kevent_chain {
	struct kevent_op *first; /* held back until all are there */
	struct kevent_op *last;	/* the next element is linked to it; or NULL */
	bool cut;		/* one was not taken, and the next ones are not */
};

struct kevent_op {
	struct kevent_user *user;
	struct list_head lane;	/* user->lanes */
	struct list_head run;	/* of user: runnable, stalled ..., or of pool: starved */
	u64 user_data;
	u64 handle;
	u64 address;
	u64 bytes;		/* or pieces of a vector */
	s64 total;		/* bytes that are success; -1: any */
	s64 done;		/* bytes so far; connect: 1 once begun; the result */
	u64 data[2];		/* of its entry */
	u32 events;		/* KEVENT_RECV_POOL, KEVENT_ACCEPT_RECV ... */
	u16 flags;		/* KEVENT_MULTISHOT ... */
	u16 entry_flags;
	u8 opcode;
	u8 state;		/* user->lock */
	bool again;		/* woken while it ran; user->lock */
	bool hooked;
	bool told;		/* its last entry is in the ring; user->lock */
	bool granted;		/* a buffer of `pool` is kept for it; see there */
	u32 wanted;		/* mask of its direction */
	fl_owner_t files;	/* of its submitter */
	const struct cred *cred; /* held, the same's */
	struct inode *inode;	/* held, of the socket; NULL: it has none */
	struct file *file;	/* held, of the socket; NULL for Unix sockets */
	struct kevent_op *link;	/* waits for its full success; or NULL */
	struct kevent_op *before; /* whose `link` it is */
	int error;		/* what it ends with when its turn comes; or 0 */
	struct kevent_hook hook;
	struct kevent_pool *pool;
	struct sock *sk;	/* of `file`, if softirq may copy; or NULL */

	/* sendfile */
	struct file *source;	/* held */
	loff_t offset;
	u64 length;
	struct kevent_parts parts;
	bool reads;		/* there was a read */
	struct kevent_read *read; /* under way; kevent_read_lock */
	struct kevent_read *buffer; /* what it has read */
	int read_error;
	bool by_copy;		/* pages cannot be sent by reference */
	bool missed;		/* a read did not bring the page */
	bool ended;		/* a read found the file's end */
	bool opening;		/* `source` is yet to be opened */
};

/* Pieces of data or connections in one turn, so that others get theirs. */
#define KEVENT_TURN	32

/* What a try returns if neither the result is there nor the socket waited for. */
#define KEVENT_WAITS	S64_MIN
/* The result is EAGAIN; -EAGAIN itself asks to wait for the socket. */
#define KEVENT_AGAIN	(S64_MIN + 1)

/*
 * Was memory of the user not there, and is this not KEVENT_ENTER? Nobody else waits
 * for it: who pages it in might be the process that cannot end before a worker has.
 */
static inline bool kevent_faulted(s64 r)
{
	return r == -EFAULT && pagefault_disabled();
}

static inline bool kevent_is_operation(u8 opcode)
{
	return opcode >= KEVENT_OP_ACCEPT && opcode < KEVENT_OP_CANCEL;
}

int kevent_op_cancel(struct kevent_user *u, const struct kevent_sqe *s);
bool kevent_stalled_may_run(const struct kevent_user *u);
bool kevent_ops_wait(const struct kevent_user *u);
void kevent_ops_run(struct kevent_user *u);
void kevent_ops_pass_on(struct kevent_user *u);
void kevent_ops_end(struct kevent_user *u);
void kevent_op_free(struct kevent_op *op);
void kevent_run_work(struct kevent_user *u);
void kevent_op_wake(struct kevent_op *op);
bool kevent_op_sleep(struct kevent_op *op);
s64 kevent_op_yield(struct kevent_op *op);
s64 kevent_op_stall(struct kevent_op *op, unsigned int turn);
s64 kevent_op_leave(struct kevent_op *op, struct list_head *list);
int kevent_op_init(void);
void kevent_op_exit(void);

/* submit.c */
struct kevent_op *kevent_op_alloc(struct kevent_user *u);
void kevent_op_submit(struct kevent_op *op, const struct kevent_sqe *s,
		      struct kevent_chain *chain);
void kevent_chain_begin(struct kevent_chain *chain);
void kevent_chain_cut(struct kevent_chain *chain, const struct kevent_sqe *s);

/* recv.c */
int kevent_recv_buffer(struct socket *sock, const struct kevent_pool *pool,
		       u16 id);

/* send.c, sendfile.c */
#define KEVENT_PAGES	32	/* handed to a socket at a time */

s64 kevent_send_bytes(struct kevent_op *op, struct socket *sock, u64 address,
		      u64 bytes, bool more);

/* accept.c */
bool kevent_may_accept(const struct kevent_op *op);
s64 kevent_try_accept(struct kevent_op *op, struct socket *sock);

/* pin.c */

/* A span of pinned memory. */
struct kevent_pinned {
	struct bio_vec *page;	/* each of a whole page */
	unsigned long pages;
	unsigned int offset;	/* in the first page */
};

/* A pool's buffers and ring. */
struct kevent_pin {
	struct kevent_pinned buffers;
	struct kevent_pinned ring;
	void *map;		/* of the ring's pages */
	const u32 *tail;	/* in there */
	const u16 *id;
	struct user_struct *user; /* held, charged; or NULL */
	unsigned long charged;	/* pages */
};

int kevent_pin_pool(struct kevent_user *u, const struct kevent_register *g,
		    u64 ring_bytes, struct kevent_pin **to);
void kevent_unpin_pool(struct kevent_user *u, struct kevent_pin *pin);

/* pool.c */
struct kevent_pool {
	u64 address;
	u64 ring;
	u32 buffer_bytes;
	u32 count;
	u32 head;		/* buffers taken; of a pinned one: user->lock */
	u32 users;		/* operations that name it */
	struct kevent_pin *pin;	/* or NULL */
	/*
	 * Operations that wait for a buffer, oldest first, and how many of them have
	 * been told to take one, and have not done so. Written with user->mutex and
	 * user->lock held, read with one of them.
	 */
	struct list_head starved;	/* kevent_op.run */
	u32 granted;
	u8 backs;		/* user->lock: taken and given back, on `back` */
	u16 back[2];
};

int kevent_pool_take(struct kevent_user *u, struct kevent_pool *pool, u16 *id);
void kevent_pool_give_back(struct kevent_user *u, struct kevent_pool *pool,
			   u16 id);
int kevent_pool_pop(struct kevent_pool *pool, u16 *id);
void kevent_pool_push(struct kevent_pool *pool, u16 id);
bool kevent_pool_awaited(const struct kevent_pool *pool);
void kevent_pool_grant(struct kevent_user *u, struct kevent_pool *pool);
void kevent_pool_ungrant(struct kevent_op *op);
int kevent_pool_import(const struct kevent_pool *pool, u16 id,
		       struct iovec *iov, struct iov_iter *iter);
long kevent_register_call(struct kevent_user *u, void __user *argument);
void kevent_pools_free(struct kevent_user *u);
void kevent_pools_unpin(struct kevent_user *u);

/* softirq.c */
void kevent_copy_init(struct kevent_user *u);
void kevent_copy_exit(struct kevent_user *u);

/* sendfile.c */
int kevent_sendfile_set(struct kevent_op *op, const struct kevent_sqe *s);
s64 kevent_try_sendfile(struct kevent_op *op, struct socket *sock);
void kevent_read_detach(struct kevent_op *op);
int kevent_read_init(void);
void kevent_read_exit(void);

/* poll.c */
extern const struct kevent_source_ops kevent_poll_ops;
extern const struct kevent_source_ops kevent_socket_ops;
int kevent_sock_init(void);
void kevent_sock_exit(void);
void kevent_hook_add(struct kevent_hook *hook, struct kevent *k,
		     wait_queue_head_t *head, wait_queue_func_t function);
void kevent_hook_remove(struct kevent_hook *hook);

/* inode.c, timer.c, signal.c */
extern const struct kevent_source_ops kevent_inode_ops;
void kevent_inode_free_group(struct kevent_user *u);
void kevent_inode_exit(void);
extern const struct kevent_source_ops kevent_timer_ops;
void kevent_timer_resume(struct kevent *k);
extern const struct kevent_source_ops kevent_signal_ops;
void kevent_collect_signals(struct kevent_user *u);
void kevent_signal_look(struct kevent_user *u);

/* main.c */
extern const struct file_operations kevent_file_operations;

static inline bool kevent_is_level(const struct kevent *k)
{
	return k->ops->test &&
	       !(k->flags & (KEVENT_EDGE | KEVENT_ONESHOT | KEVENT_DISPATCH));
}

#endif /* _KEVENT_CORE_H */
