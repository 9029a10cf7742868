// SPDX-License-Identifier: GPL-2.0-only
/* KEVENT_REGISTER: pools of buffers that recv chooses from. */
#include <linux/log2.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

#include "compat.h"
#include "core.h"
#include "op.h"

/* Of a pool that is not pinned. Context: as kevent_pool_take(). */
static int kevent_pool_peek_user(const struct kevent_pool *pool, u16 *id)
{
	struct kevent_pool_ring __user *ring = u64_to_user_ptr(pool->ring);
	u32 tail;

	if (get_user(tail, &ring->tail))
		return -EFAULT;
	if (tail == pool->head)
		return -ENOBUFS;
	/* Pairs with the user's release. */
	smp_rmb();
	if (get_user(*id, &ring->id[pool->head & (pool->count - 1)]))
		return -EFAULT;
	return *id < pool->count ? 0 : -EINVAL;
}

/* Of a pinned one. Context: any, but a glance if user->lock is not held. */
static int kevent_pool_peek_pinned(const struct kevent_pool *pool, u16 *id)
{
	const u32 head = READ_ONCE(pool->head);

	/* Pairs with the user's release. */
	if (smp_load_acquire(pool->pin->tail) == head)
		return -ENOBUFS;
	*id = READ_ONCE(pool->pin->id[head & (pool->count - 1)]);
	return *id < pool->count ? 0 : -EINVAL;
}

/*
 * Takes the next buffer out of a pinned pool. Those that were given back first.
 * Context: user->lock held.
 */
int kevent_pool_pop(struct kevent_pool *pool, u16 *id)
{
	int r;

	if (pool->backs) {
		*id = pool->back[--pool->backs];
		return 0;
	}
	r = kevent_pool_peek_pinned(pool, id);
	if (!r)
		WRITE_ONCE(pool->head, pool->head + 1);
	return r;
}

/* Gives back what kevent_pool_pop() has taken. Context: user->lock held. */
void kevent_pool_push(struct kevent_pool *pool, u16 id)
{
	/* One of the holder of user->mutex, one of the softirq. */
	if (!WARN_ON_ONCE(pool->backs == ARRAY_SIZE(pool->back)))
		pool->back[pool->backs++] = id;
}

/*
 * Takes the next buffer out of the pool. -ENOBUFS: there is none.
 * Context: process with the opener's memory, user->mutex held.
 */
int kevent_pool_take(struct kevent_user *u, struct kevent_pool *pool, u16 *id)
{
	int r;

	if (!pool->pin) {
		r = kevent_pool_peek_user(pool, id);
		if (!r)
			pool->head++;
		return r;
	}
	spin_lock_irq(&u->lock);
	r = kevent_pool_pop(pool, id);
	spin_unlock_irq(&u->lock);
	return r;
}

/* Gives it back, unused. Context: the same; user->mutex has been held since. */
void kevent_pool_give_back(struct kevent_user *u, struct kevent_pool *pool,
			   u16 id)
{
	if (!pool->pin) {
		pool->head--;
		return;
	}
	spin_lock_irq(&u->lock);
	kevent_pool_push(pool, id);
	spin_unlock_irq(&u->lock);
}

/*
 * How many buffers are there? All of them if that cannot be found out: who takes one
 * is told the error. A glance. Context: as kevent_pool_peek_user(), or, if it is
 * pinned, any.
 */
static u32 kevent_pool_available(const struct kevent_pool *pool)
{
	struct kevent_pool_ring __user *ring = u64_to_user_ptr(pool->ring);
	u32 tail;

	if (pool->pin)
		tail = smp_load_acquire(pool->pin->tail);
	else if (get_user(tail, &ring->tail))
		return pool->count;
	return min(tail - READ_ONCE(pool->head) + READ_ONCE(pool->backs),
		   pool->count);
}

/*
 * Do others wait for what it has? Then one queues behind them. Context: the same, and
 * user->mutex or user->lock held.
 */
bool kevent_pool_awaited(const struct kevent_pool *pool)
{
	return !list_empty(&pool->starved) ||
	       (pool->granted && pool->granted >= kevent_pool_available(pool));
}

/*
 * Those that have waited longest for the pool's buffers may run: one for each
 * buffer, which nobody else takes meanwhile. Context: as kevent_pool_take().
 */
void kevent_pool_grant(struct kevent_user *u, struct kevent_pool *pool)
{
	struct kevent_op *op, *next;
	u32 available;

	if (list_empty(&pool->starved))
		return;
	available = kevent_pool_available(pool);
	spin_lock_irq(&u->lock);
	list_for_each_entry_safe(op, next, &pool->starved, run) {
		if (pool->granted >= available)
			break;
		pool->granted++;
		op->granted = true;
		WRITE_ONCE(u->starving, u->starving - 1);
		op->state = KEVENT_OP_WAITING;
		list_move_tail(&op->run, &u->runnable);
		kevent_set_flag(u, KEVENT_RING_PENDING);
	}
	spin_unlock_irq(&u->lock);
}

/*
 * It has taken its buffer, or does without. Context: process, user->mutex and
 * user->lock held.
 */
void kevent_pool_ungrant(struct kevent_op *op)
{
	if (!op->granted)
		return;
	op->granted = false;
	op->pool->granted--;
}

/*
 * Describes buffer `id` for a copy. `iov` must live as long as `iter`. 0 or
 * -errno. Context: as kevent_pool_take(); if it is pinned, any.
 */
int kevent_pool_import(const struct kevent_pool *pool, u16 id,
		       struct iovec *iov, struct iov_iter *iter)
{
	const u64 at = (u64)id * pool->buffer_bytes;
	const struct kevent_pinned *buffers;
	u64 from;

	if (!pool->pin)
		return kevent_import(ITER_DEST,
				     u64_to_user_ptr(pool->address + at),
				     pool->buffer_bytes, iov, iter);
	buffers = &pool->pin->buffers;
	from = buffers->offset + at;
	iov_iter_bvec(iter, ITER_DEST, &buffers->page[from >> PAGE_SHIFT],
		      DIV_ROUND_UP(offset_in_page(from) + pool->buffer_bytes,
				   PAGE_SIZE),
		      offset_in_page(from) + pool->buffer_bytes);
	iov_iter_advance(iter, offset_in_page(from));
	return 0;
}

static int kevent_register_pool(struct kevent_user *u,
				struct kevent_register *g)
{
	struct kevent_pool *pool;
	u64 count, ring_bytes;
	u32 id;
	int r;

	if (g->id || !g->buffer_bytes || g->bytes % g->buffer_bytes)
		return -EINVAL;
	count = g->bytes / g->buffer_bytes;
	if (count > KEVENT_MAX_BUFFERS || !is_power_of_2(count))
		return -EINVAL;
	if (g->ring % sizeof(u32))
		return -EINVAL;
	ring_bytes = sizeof(struct kevent_pool_ring) + count * sizeof(u16);
	if (!access_ok(u64_to_user_ptr(g->address), g->bytes) ||
	    !access_ok(u64_to_user_ptr(g->ring), ring_bytes))
		return -EFAULT;
	for (id = 0; id < KEVENT_MAX_POOLS && u->pools[id]; id++)
		;
	if (id == KEVENT_MAX_POOLS)
		return -ENOSPC;
	pool = kzalloc(sizeof(*pool), GFP_KERNEL_ACCOUNT);
	if (!pool)
		return -ENOMEM;
	if (g->opcode == KEVENT_REGISTER_PINNED_POOL) {
		r = kevent_pin_pool(u, g, ring_bytes, &pool->pin);
		if (r) {
			kfree(pool);
			return r;
		}
	}
	pool->address = g->address;
	pool->ring = g->ring;
	pool->buffer_bytes = g->buffer_bytes;
	pool->count = count;
	INIT_LIST_HEAD(&pool->starved);
	u->pools[id] = pool;
	g->id = id;
	return 0;
}

static void kevent_pool_free(struct kevent_user *u, u32 id)
{
	if (!u->pools[id])
		return;
	kevent_unpin_pool(u, u->pools[id]->pin);
	kfree(u->pools[id]);
	u->pools[id] = NULL;
}

static int kevent_unregister(struct kevent_user *u,
			     const struct kevent_register *g)
{
	if (g->address || g->bytes || g->buffer_bytes || g->ring)
		return -EINVAL;
	if (g->id >= KEVENT_MAX_POOLS || !u->pools[g->id])
		return -ENOENT;
	/* Operations that have ended may wait to be put away. */
	if (u->pools[g->id]->pin && u->pools[g->id]->users) {
		kevent_ops_run(u);
		kevent_ops_pass_on(u);
	}
	/* The mutex was dropped perhaps. */
	if (!u->pools[g->id])
		return -ENOENT;
	if (u->pools[g->id]->users)
		return -EBUSY;
	kevent_pool_free(u, g->id);
	return 0;
}

long kevent_register_call(struct kevent_user *u, void __user *argument)
{
	struct kevent_register __user *to = argument;
	struct kevent_register g;
	u32 given;
	int r;

	r = kevent_copy_struct(&g, sizeof(g), KEVENT_REGISTER_SIZE_V1, argument,
			       &given);
	if (r)
		return r;
	if (g.reserved[0] || g.reserved[1])
		return -EINVAL;
	mutex_lock(&u->mutex);
	switch (g.opcode) {
	case KEVENT_REGISTER_POOL:
	case KEVENT_REGISTER_PINNED_POOL:
		r = kevent_register_pool(u, &g);
		if (!r && put_user(g.id, &to->id)) {
			kevent_pool_free(u, g.id);
			r = -EFAULT;
		}
		break;
	case KEVENT_UNREGISTER:
		r = kevent_unregister(u, &g);
		kevent_note_flags(u);
		break;
	default:
		r = -EINVAL;
	}
	mutex_unlock(&u->mutex);
	return r;
}

/* All of them. Context: process, the queue is being freed. */
void kevent_pools_free(struct kevent_user *u)
{
	u32 id;

	for (id = 0; id < KEVENT_MAX_POOLS; id++)
		kevent_pool_free(u, id);
}

/*
 * The opener is gone, and with him whom the memory is charged to, though others may
 * have descriptors of the queue. Context: process, u->mutex held; no operations.
 */
void kevent_pools_unpin(struct kevent_user *u)
{
	u32 id;

	for (id = 0; id < KEVENT_MAX_POOLS; id++)
		if (u->pools[id] && u->pools[id]->pin && !u->pools[id]->users)
			kevent_pool_free(u, id);
}
