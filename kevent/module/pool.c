// SPDX-License-Identifier: GPL-2.0-only
/* KEVENT_REGISTER: pools of buffers that recv chooses from. */
#include <linux/log2.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "core.h"

/*
 * The next buffer of the pool, which stays in it. -ENOBUFS: there is none.
 * Context: process with the opener's memory, user->mutex held.
 */
int kevent_pool_peek(const struct kevent_pool *pool, u16 *id)
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

static int kevent_register_pool(struct kevent_user *u,
				struct kevent_register *g)
{
	struct kevent_pool *pool;
	u64 count;
	u32 id;

	if (g->id || !g->buffer_bytes || g->bytes % g->buffer_bytes)
		return -EINVAL;
	count = g->bytes / g->buffer_bytes;
	if (count > KEVENT_MAX_BUFFERS || !is_power_of_2(count))
		return -EINVAL;
	if (g->ring % sizeof(u32))
		return -EINVAL;
	if (!access_ok(u64_to_user_ptr(g->address), g->bytes) ||
	    !access_ok(u64_to_user_ptr(g->ring),
		       sizeof(struct kevent_pool_ring) + count * sizeof(u16)))
		return -EFAULT;
	for (id = 0; id < KEVENT_MAX_POOLS && u->pools[id]; id++)
		;
	if (id == KEVENT_MAX_POOLS)
		return -ENOSPC;
	pool = kzalloc(sizeof(*pool), GFP_KERNEL_ACCOUNT);
	if (!pool)
		return -ENOMEM;
	pool->address = g->address;
	pool->ring = g->ring;
	pool->buffer_bytes = g->buffer_bytes;
	pool->count = count;
	u->pools[id] = pool;
	g->id = id;
	return 0;
}

static int kevent_unregister(struct kevent_user *u,
			     const struct kevent_register *g)
{
	if (g->address || g->bytes || g->buffer_bytes || g->ring)
		return -EINVAL;
	if (g->id >= KEVENT_MAX_POOLS || !u->pools[g->id])
		return -ENOENT;
	if (u->pools[g->id]->users)
		return -EBUSY;
	kfree(u->pools[g->id]);
	u->pools[g->id] = NULL;
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
		r = kevent_register_pool(u, &g);
		if (!r && put_user(g.id, &to->id)) {
			kfree(u->pools[g.id]);
			u->pools[g.id] = NULL;
			r = -EFAULT;
		}
		break;
	case KEVENT_UNREGISTER:
		r = kevent_unregister(u, &g);
		break;
	default:
		r = -EINVAL;
	}
	mutex_unlock(&u->mutex);
	return r;
}

void kevent_pools_free(struct kevent_user *u)
{
	unsigned int i;

	for (i = 0; i < KEVENT_MAX_POOLS; i++)
		kfree(u->pools[i]);
}
