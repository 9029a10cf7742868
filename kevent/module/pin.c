// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pinned memory of the user, for what is written where he cannot be asked for it.
 *
 * It is charged to the user who pins it as io_uring does: against RLIMIT_MEMLOCK,
 * all his processes together, unless he may lock any (CAP_IPC_LOCK). Page by page:
 * what shares a page with something else that is pinned counts twice.
 *
 * Context of all of it: process, user->mutex held (or the queue is being freed).
 */
#include <linux/bvec.h>
#include <linux/capability.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "core.h"

/* Those that are written to a disk must not be written behind its back. */
static bool kevent_may_pin(struct page *page)
{
	struct folio *folio = page_folio(page);

	return folio_test_anon(folio) || folio_test_swapbacked(folio);
}

static void kevent_unpin_pages(struct kevent_pinned *p)
{
	while (p->pages) {
		struct page *page = p->page[--p->pages].bv_page;

		/* What was written there is to survive being swapped out. */
		if (kevent_may_pin(page))
			unpin_user_pages_dirty_lock(&page, 1, true);
		else
			unpin_user_page(page);
		cond_resched();
	}
	kvfree(p->page);
	p->page = NULL;
}

static int kevent_pin_pages(struct kevent_pinned *p, u64 address, u64 bytes)
{
	const unsigned long count =
		DIV_ROUND_UP(offset_in_page(address) + bytes, PAGE_SIZE);
	unsigned long at = address & PAGE_MASK;
	struct page *page[32];
	int r = 0, i;

	p->offset = offset_in_page(address);
	p->pages = 0;
	p->page = kvmalloc_array(count, sizeof(*p->page), GFP_KERNEL_ACCOUNT);
	if (!p->page)
		return -ENOMEM;
	while (p->pages < count) {
		/* Written to: later the user finds the very pages, or none. */
		r = pin_user_pages_fast(at, min_t(unsigned long,
						  count - p->pages,
						  ARRAY_SIZE(page)),
					FOLL_WRITE | FOLL_LONGTERM, page);
		if (!r)
			r = -EFAULT;
		if (r < 0)
			goto fail;
		for (i = 0; i < r; i++)
			bvec_set_page(&p->page[p->pages++], page[i], PAGE_SIZE,
				      0);
		for (; i; i--)
			if (!kevent_may_pin(page[i - 1])) {
				r = -EOPNOTSUPP;
				goto fail;
			}
		at += r * PAGE_SIZE;
		cond_resched();
	}
	return 0;
fail:
	kevent_unpin_pages(p);
	return r;
}

/* For the kernel to read as one piece. */
static void *kevent_map_pinned(const struct kevent_pinned *p)
{
	struct page **pages;
	unsigned long i;
	void *map;

	pages = kvmalloc_array(p->pages, sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return NULL;
	for (i = 0; i < p->pages; i++)
		pages[i] = p->page[i].bv_page;
	map = vmap(pages, p->pages, VM_MAP, PAGE_KERNEL);
	kvfree(pages);
	return map;
}

static int kevent_pin_charge(struct kevent_user *u, struct kevent_pin *pin,
			     unsigned long count)
{
	if (!capable(CAP_IPC_LOCK)) {
		struct user_struct *user = current_user();
		const unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
		long locked = atomic_long_read(&user->locked_vm);

		do {
			if (count > limit || locked > limit - count)
				return -ENOMEM;
		} while (!atomic_long_try_cmpxchg(&user->locked_vm, &locked,
						  locked + count));
		pin->user = get_uid(user);
	}
	atomic64_add(count, &u->mm->pinned_vm);
	WRITE_ONCE(u->pinned, u->pinned + count);
	pin->charged = count;
	return 0;
}

static void kevent_pin_uncharge(struct kevent_user *u, struct kevent_pin *pin)
{
	if (pin->user) {
		atomic_long_sub(pin->charged, &pin->user->locked_vm);
		free_uid(pin->user);
	}
	atomic64_sub(pin->charged, &u->mm->pinned_vm);
	WRITE_ONCE(u->pinned, u->pinned - pin->charged);
}

/*
 * Pins the buffers and the ring of a pool. NULL into `*to` and -errno: -ENOMEM
 * beyond the limit, -EFAULT, -EOPNOTSUPP for memory of files on disks.
 */
int kevent_pin_pool(struct kevent_user *u, const struct kevent_register *g,
		    u64 ring_bytes, struct kevent_pin **to)
{
	const u64 count =
		DIV_ROUND_UP(offset_in_page(g->address) + g->bytes, PAGE_SIZE) +
		DIV_ROUND_UP(offset_in_page(g->ring) + ring_bytes, PAGE_SIZE);
	struct kevent_pin *pin;
	int r;

	*to = NULL;
	if (g->bytes > KEVENT_MAX_PINNED)
		return -EINVAL;
	pin = kzalloc(sizeof(*pin), GFP_KERNEL_ACCOUNT);
	if (!pin)
		return -ENOMEM;
	r = kevent_pin_charge(u, pin, count);
	if (r)
		goto free;
	r = kevent_pin_pages(&pin->buffers, g->address, g->bytes);
	if (r)
		goto uncharge;
	r = kevent_pin_pages(&pin->ring, g->ring, ring_bytes);
	if (r)
		goto buffers;
	pin->map = kevent_map_pinned(&pin->ring);
	r = -ENOMEM;
	if (!pin->map)
		goto ring;
	pin->tail = pin->map + pin->ring.offset;
	pin->id = pin->map + pin->ring.offset +
		  offsetof(struct kevent_pool_ring, id);
	*to = pin;
	return 0;
ring:
	kevent_unpin_pages(&pin->ring);
buffers:
	kevent_unpin_pages(&pin->buffers);
uncharge:
	kevent_pin_uncharge(u, pin);
free:
	kfree(pin);
	return r;
}

/* `pin` may be NULL. */
void kevent_unpin_pool(struct kevent_user *u, struct kevent_pin *pin)
{
	if (!pin)
		return;
	vunmap(pin->map);
	kevent_unpin_pages(&pin->ring);
	kevent_unpin_pages(&pin->buffers);
	kevent_pin_uncharge(u, pin);
	kfree(pin);
}
