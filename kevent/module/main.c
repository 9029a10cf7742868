// SPDX-License-Identifier: GPL-2.0-only
/* The device: opening, setting up, mapping, polling, describing, closing. */
#include <linux/fdtable.h>
#include <linux/log2.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "compat.h"
#include "core.h"

static_assert(sizeof(struct kevent_sqe) == 64);
static_assert(sizeof(struct kevent_entry) == 64);
static_assert(sizeof(struct kevent_ring) == 192);
static_assert(sizeof(struct kevent_setup) == KEVENT_SETUP_SIZE_V1);
static_assert(sizeof(struct kevent_control) == KEVENT_CONTROL_SIZE_V1);
static_assert(sizeof(struct kevent_enter) == KEVENT_ENTER_SIZE_V1);
static_assert(sizeof(struct kevent_register) == KEVENT_REGISTER_SIZE_V1);

/* Tests sources when nobody is in KEVENT_ENTER to do it. Context: worker. */
static void kevent_test_work(struct kevent_user *u)
{
	mutex_lock(&u->mutex);
	spin_lock_irq(&u->lock);
	list_splice_tail_init(&u->later, &u->test);
	spin_unlock_irq(&u->lock);
	kevent_test_heard(u);
	mutex_unlock(&u->mutex);
	kevent_note_flags(u);
}

static int kevent_open(struct inode *inode, struct file *file)
{
	struct kevent_user *u;

	if (!current->mm)
		return -EINVAL;
	u = kzalloc(sizeof(*u), GFP_KERNEL_ACCOUNT);
	if (!u)
		return -ENOMEM;
	u->account = kevent_account_get();
	if (!u->account) {
		kfree(u);
		return -ENOMEM;
	}
	mutex_init(&u->mutex);
	mutex_init(&u->consume);
	u->mm = current->mm;
	mmgrab(u->mm);
	xa_init_flags(&u->table, XA_FLAGS_ALLOC);
	INIT_LIST_HEAD(&u->signals);
	kevent_work_init(&u->test_work, u, kevent_test_work);
	init_irq_work(&u->poll_work, kevent_poll_work);
	spin_lock_init(&u->lock);
	INIT_LIST_HEAD(&u->ready);
	INIT_LIST_HEAD(&u->seen);
	INIT_LIST_HEAD(&u->test);
	INIT_LIST_HEAD(&u->later);
	INIT_LIST_HEAD(&u->reap);
	INIT_LIST_HEAD(&u->runnable);
	INIT_LIST_HEAD(&u->stalled);
	INIT_LIST_HEAD(&u->owners);
	INIT_LIST_HEAD(&u->done);
	INIT_LIST_HEAD(&u->spare);
	kevent_work_init(&u->run_work, u, kevent_run_work);
	kevent_copy_init(u);
	kevent_alarm_init(u);
	u->files = current->files;
	init_waitqueue_head(&u->wait);
	init_waitqueue_head(&u->poll_wait);
	file->private_data = u;
	return nonseekable_open(inode, file);
}

static int kevent_release(struct inode *inode, struct file *file)
{
	struct kevent_user *u = file->private_data;
	unsigned long index;
	struct kevent *k;

	/* Nobody else is here: there is no descriptor, mapping or call left. */
	mutex_lock(&u->mutex);
	xa_for_each(&u->table, index, k) {
		kevent_remove(k);
		cond_resched();
	}
	kevent_ops_end(u);
	mutex_unlock(&u->mutex);
	/* Before what it queues. */
	kevent_copy_exit(u);
	kevent_work_stop(&u->test_work);
	kevent_work_stop(&u->run_work);
	irq_work_sync(&u->poll_work);
	kevent_alarm_exit(u);
	kevent_inode_free_group(u);
	xa_destroy(&u->table);
	if (u->ring) {
		account_locked_vm(u->mm, u->ring_bytes >> PAGE_SHIFT, false);
		vfree(u->ring);
	}
	kevent_pools_free(u);
	kvfree(u->lanes);
	mmdrop(u->mm);
	kevent_account_put(u->account);
	/* A mark's callback may still look at an interest, and at our lock. */
	kfree_rcu(u, rcu);
	return 0;
}

static int kevent_is_file(const void *file, struct file *other, unsigned int fd)
{
	return file == other;
}

/*
 * A descriptor is closed. If it is the last one that the opener has (it ends, or
 * has closed all) its operations end: others may have descriptors of the queue
 * still, and must not keep its sockets.
 */
static int kevent_file_flush(struct file *file, fl_owner_t id)
{
	struct kevent_user *u = file->private_data;

	if (id == u->files && (current->files != id ||
			       !iterate_fd(id, 0, kevent_is_file, file))) {
		mutex_lock(&u->mutex);
		kevent_ops_end(u);
		kevent_pools_unpin(u);
		mutex_unlock(&u->mutex);
	}
	return 0;
}

static bool kevent_ring_size_valid(u32 *entries, u32 fallback)
{
	if (!*entries)
		*entries = fallback;
	return is_power_of_2(*entries) && *entries <= KEVENT_MAX_RING;
}

/* Zeroed memory for the user to map, charged to his memory cgroup. */
static void *kevent_alloc_ring(unsigned int count)
{
	struct page **pages;
	unsigned int i;
	void *ring;

	pages = kvmalloc_array(count, sizeof(*pages), GFP_KERNEL_ACCOUNT);
	if (!pages)
		return NULL;
	for (i = 0; i < count; i++) {
		pages[i] = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
		if (!pages[i])
			goto fail;
	}
	/* vfree() frees the pages, and the array. */
	ring = vmap(pages, count, VM_USERMAP | VM_MAP_PUT_PAGES, PAGE_KERNEL);
	if (ring)
		return ring;
fail:
	while (i)
		__free_page(pages[--i]);
	kvfree(pages);
	return NULL;
}

static long kevent_setup_call(struct kevent_user *u, void __user *argument)
{
	struct kevent_setup setup;
	struct list_head *lanes = NULL;
	struct kevent_ring *ring;
	unsigned long bytes, cq_offset, sq_offset;
	unsigned int i;
	u32 given;
	int r;

	r = kevent_copy_struct(&setup, sizeof(setup), KEVENT_SETUP_SIZE_V1,
			       argument, &given);
	if (r)
		return r;
	if (!setup.abi_version || setup.abi_version > KEVENT_ABI_VERSION ||
	    setup.flags || setup.features || setup.reserved0 ||
	    setup.ring_bytes || setup.reserved[0] || setup.reserved[1] ||
	    setup.reserved[2])
		return -EINVAL;
	if (!kevent_ring_size_valid(&setup.cq_entries, KEVENT_DEFAULT_CQ) ||
	    !kevent_ring_size_valid(&setup.sq_entries, KEVENT_DEFAULT_SQ))
		return -EINVAL;
	if (!setup.max_interests)
		setup.max_interests = 1 << 20;
	if (setup.max_interests > KEVENT_MAX_INTERESTS)
		return -EINVAL;

	cq_offset = sizeof(struct kevent_ring);
	sq_offset = cq_offset + setup.cq_entries * sizeof(struct kevent_entry);
	bytes = PAGE_ALIGN(sq_offset +
			   setup.sq_entries * sizeof(struct kevent_sqe));
	setup.size = given;
	setup.abi_version = KEVENT_ABI_VERSION;
	setup.features = KEVENT_FEATURE_NAIO | KEVENT_FEATURE_PINNED_POOLS |
			 KEVENT_FEATURE_REFERENCE;
	setup.ring_bytes = bytes;

	mutex_lock(&u->mutex);
	if (u->ring) {
		r = -EBUSY;
		goto out;
	}
	r = account_locked_vm(u->mm, bytes >> PAGE_SHIFT, true);
	if (r)
		goto out;
	ring = kevent_alloc_ring(bytes >> PAGE_SHIFT);
	lanes = kvmalloc_array(KEVENT_LANES + 1, sizeof(*lanes),
			       GFP_KERNEL_ACCOUNT);
	if (!ring || !lanes) {
		r = -ENOMEM;
		goto unaccount;
	}
	if (copy_to_user(argument, &setup, given)) {
		r = -EFAULT;
		goto unaccount;
	}
	for (i = 0; i <= KEVENT_LANES; i++)
		INIT_LIST_HEAD(&lanes[i]);
	u->lanes = lanes;
	ring->cq_entries = setup.cq_entries;
	ring->sq_entries = setup.sq_entries;
	ring->cq_offset = cq_offset;
	ring->sq_offset = sq_offset;
	u->cq = (void *)ring + cq_offset;
	u->sq = (void *)ring + sq_offset;
	u->cq_entries = setup.cq_entries;
	u->sq_entries = setup.sq_entries;
	u->max_interests = setup.max_interests;
	u->ring_bytes = bytes;
	/* Pairs with kevent_ready_ring(). */
	smp_store_release(&u->ring, ring);
	goto out;
unaccount:
	vfree(ring);
	kvfree(lanes);
	account_locked_vm(u->mm, bytes >> PAGE_SHIFT, false);
out:
	mutex_unlock(&u->mutex);
	return r;
}

static struct kevent_ring *kevent_ready_ring(struct kevent_user *u)
{
	/* Pairs with kevent_setup_call(). */
	return smp_load_acquire(&u->ring);
}

static long kevent_ioctl(struct file *file, unsigned int command,
			 unsigned long argument)
{
	struct kevent_user *u = file->private_data;
	void __user *p = (void __user *)argument;

	switch (command) {
	case KEVENT_SETUP:
	case KEVENT_CONTROL:
	case KEVENT_ENTER:
	case KEVENT_REGISTER:
		break;
	default:
		return -ENOTTY;
	}
	if (current->mm != u->mm)
		return -EXDEV;
	if (command == KEVENT_SETUP)
		return kevent_setup_call(u, p);
	if (!kevent_ready_ring(u))
		return -ENXIO;
	if (command == KEVENT_CONTROL)
		return kevent_control_call(u, p);
	if (command == KEVENT_REGISTER)
		return kevent_register_call(u, p);
	return kevent_enter_call(u, p);
}

/*
 * The opener's memory goes: it ends, or executes another program, which may keep
 * the descriptor. Nobody can go on with its operations. Context: process.
 */
static void kevent_vma_close(struct vm_area_struct *vma)
{
	struct kevent_user *u = vma->vm_file->private_data;

	if (!atomic_read(&vma->vm_mm->mm_users) &&
	    (READ_ONCE(u->ops) || READ_ONCE(u->pinned)))
		kevent_work_hurry(&u->run_work);
}

static const struct vm_operations_struct kevent_vm_operations = {
	.close = kevent_vma_close,
};

static int kevent_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct kevent_user *u = file->private_data;
	struct kevent_ring *ring = kevent_ready_ring(u);

	if (!ring)
		return -ENXIO;
	if (current->mm != u->mm)
		return -EXDEV;
	if (vma->vm_pgoff || vma->vm_end - vma->vm_start != u->ring_bytes ||
	    !(vma->vm_flags & VM_SHARED) || vma->vm_flags & VM_EXEC)
		return -EINVAL;
	kevent_vm_flags_set(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	kevent_vm_flags_clear(vma, VM_MAYEXEC);
	vma->vm_ops = &kevent_vm_operations;
	return remap_vmalloc_range(vma, ring, 0);
}

static __poll_t kevent_poll(struct file *file, poll_table *table)
{
	struct kevent_user *u = file->private_data;

	if (!kevent_ready_ring(u))
		return EPOLLERR;
	poll_wait(file, &u->poll_wait, table);
	/* Pairs with the barrier in kevent_wake(). */
	smp_mb();
	if (!kevent_available(u)) {
		mutex_lock(&u->mutex);
		kevent_test_all(u);
		kevent_collect_signals(u);
		if (current->mm == u->mm) {
			pagefault_disable();
			kevent_ops_run(u);
			pagefault_enable();
			/* Who asks need not act upon the answer. */
			kevent_ops_pass_on(u);
		}
		mutex_unlock(&u->mutex);
		kevent_note_flags(u);
	}
	if (kevent_available(u) || READ_ONCE(u->signals_pending) ||
	    !list_empty(&u->test) || kevent_ops_wait(u))
		return EPOLLIN | EPOLLRDNORM;
	return 0;
}

/* /proc/PID/fdinfo/FD. Figures of one moment each, not of the same. */
static void kevent_show_fdinfo(struct seq_file *m, struct file *file)
{
	static const char *const names[] = {
		[KEVENT_SOURCE_SOCKET] = "socket",
		[KEVENT_SOURCE_POLL] = "poll",
		[KEVENT_SOURCE_INODE] = "inode",
		[KEVENT_SOURCE_TIMER] = "timer",
		[KEVENT_SOURCE_SIGNAL] = "signal",
		[KEVENT_SOURCE_USER] = "user",
	};
	struct kevent_user *u = file->private_data;
	unsigned int count[ARRAY_SIZE(names)] = {};
	unsigned long index;
	struct kevent *k;
	int i;

	if (!kevent_ready_ring(u))
		return;
	if (mutex_lock_killable(&u->mutex))
		return;
	xa_for_each(&u->table, index, k)
		count[k->source]++;
	seq_printf(m, "kevent-interests:\t%u of %u\n", u->interests,
		   u->max_interests);
	seq_printf(m, "kevent-operations:\t%u\n", u->ops);
	seq_printf(m, "kevent-worker-runs:\t%llu\n", u->worker_runs);
	seq_printf(m, "kevent-pinned-pages:\t%lu\n", u->pinned);
	mutex_unlock(&u->mutex);
	for (i = 1; i < ARRAY_SIZE(names); i++)
		seq_printf(m, "kevent-%s:\t%u\n", names[i], count[i]);
	seq_printf(m, "kevent-user-interests:\t%ld\n",
		   kevent_account_interests(u->account));
	seq_printf(m, "kevent-ring:\t%u of %u, at most %llu\n",
		   min(kevent_unread(u), u->cq_entries), u->cq_entries,
		   u->high_water);
	seq_printf(m, "kevent-waiting-for-room:\t%u\n",
		   READ_ONCE(u->ready_count));
	seq_printf(m, "kevent-entries:\t%llu\n", READ_ONCE(u->tail));
	seq_printf(m, "kevent-deferred:\t%llu\n", READ_ONCE(u->deferred));
	seq_printf(m, "kevent-wakeups:\t%llu\n", READ_ONCE(u->wakeups));
	seq_printf(m, "kevent-copied-in-softirq:\t%llu\n",
		   READ_ONCE(u->copied_pieces));
}

const struct file_operations kevent_file_operations = {
	.owner = THIS_MODULE,
	.open = kevent_open,
	.flush = kevent_file_flush,
	.release = kevent_release,
	.unlocked_ioctl = kevent_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = kevent_mmap,
	.poll = kevent_poll,
	.show_fdinfo = kevent_show_fdinfo,
};

static struct miscdevice kevent_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kevent",
	.fops = &kevent_file_operations,
	.mode = 0600,
};

static int __init kevent_init(void)
{
	int r;

	r = kevent_work_create();
	if (r)
		return r;
	r = kevent_sock_init();
	if (r)
		goto work;
	r = kevent_op_init();
	if (r)
		goto sock;
	r = misc_register(&kevent_device);
	if (r)
		goto op;
	return 0;
op:
	kevent_op_exit();
sock:
	kevent_sock_exit();
work:
	kevent_work_destroy();
	return r;
}

static void __exit kevent_exit(void)
{
	misc_deregister(&kevent_device);
	/* A task may be about to leave our code, and not have run since. */
	kevent_inode_exit();
	synchronize_rcu_tasks();
	rcu_barrier();
	kevent_op_exit();
	kevent_sock_exit();
	kevent_work_destroy();
}

module_init(kevent_init);
module_exit(kevent_exit);

MODULE_DESCRIPTION("kevent: one queue for all kinds of events");
MODULE_LICENSE("GPL");
