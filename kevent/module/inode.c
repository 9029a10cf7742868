// SPDX-License-Identifier: GPL-2.0-only
/*
 * Files and directories, by fsnotify: each interest has a mark of its own in the
 * group of its queue. The mark outlives the interest, until fsnotify's grace
 * period has passed.
 */
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fsnotify_backend.h>
#include <linux/slab.h>

#include "core.h"

struct kevent_mark {
	struct fsnotify_mark mark;
	struct kevent __rcu *k;		/* NULL once that is removed */
};

/* Marks whose functions are still to be called. */
static atomic_t kevent_marks;

static_assert(KEVENT_INODE_MODIFY == FS_MODIFY);
static_assert(KEVENT_INODE_ATTRIB == FS_ATTRIB);
static_assert(KEVENT_INODE_CLOSE_WRITE == FS_CLOSE_WRITE);
static_assert(KEVENT_INODE_MOVED_FROM == FS_MOVED_FROM);
static_assert(KEVENT_INODE_MOVED_TO == FS_MOVED_TO);
static_assert(KEVENT_INODE_CREATE == FS_CREATE);
static_assert(KEVENT_INODE_REMOVE == FS_DELETE);
static_assert(KEVENT_INODE_REMOVE_SELF == FS_DELETE_SELF);
static_assert(KEVENT_INODE_MOVE_SELF == FS_MOVE_SELF);

/* Context: process, within the change; fsnotify's SRCU held. */
static int kevent_inode_event(struct fsnotify_mark *fsn_mark, u32 mask,
			      struct inode *inode, struct inode *dir,
			      const struct qstr *name, u32 cookie)
{
	struct kevent_mark *mark =
		container_of(fsn_mark, struct kevent_mark, mark);
	struct kevent *k;

	rcu_read_lock();
	k = rcu_dereference(mark->k);
	if (k && mask & READ_ONCE(k->events)) {
		struct kevent_event event = {
			.events = mask & READ_ONCE(k->events),
			.data = { cookie, dir && inode ? inode->i_ino : 0 },
		};

		kevent_deliver(k, &event);
	}
	rcu_read_unlock();
	return 0;
}

/* The inode is deleted or unmounted, or we removed the mark. Context: process. */
static void kevent_inode_freeing(struct fsnotify_mark *fsn_mark,
				 struct fsnotify_group *group)
{
	struct kevent_mark *mark =
		container_of(fsn_mark, struct kevent_mark, mark);
	struct kevent *k;

	rcu_read_lock();
	k = rcu_dereference(mark->k);
	if (k) {
		struct kevent_event event = {
			.flags = KEVENT_ENTRY_BROKEN,
			.result = -ENOENT,
		};

		kevent_deliver(k, &event);
	}
	rcu_read_unlock();
}

static void kevent_inode_free(struct fsnotify_mark *fsn_mark)
{
	kfree(container_of(fsn_mark, struct kevent_mark, mark));
	atomic_dec(&kevent_marks);
}

static const struct fsnotify_ops kevent_fsnotify_ops = {
	.handle_inode_event = kevent_inode_event,
	.freeing_mark = kevent_inode_freeing,
	.free_mark = kevent_inode_free,
};

static int kevent_inode_add(struct kevent *k, const struct kevent_sqe *s)
{
	struct kevent_user *u = k->user;
	struct kevent_mark *mark;
	struct file *file;
	int r;

	file = fget_raw(s->fd);
	if (!file)
		return -EBADF;
	/* As inotify: who may not read it may not watch it. */
	r = file_permission(file, MAY_READ);
	if (r)
		goto out;
	if (!u->group) {
		struct fsnotify_group *group =
			fsnotify_alloc_group(&kevent_fsnotify_ops,
					     FSNOTIFY_GROUP_USER |
					     FSNOTIFY_GROUP_DUPS);

		if (IS_ERR(group)) {
			r = PTR_ERR(group);
			goto out;
		}
		u->group = group;
	}
	mark = kzalloc(sizeof(*mark), GFP_KERNEL_ACCOUNT);
	if (!mark) {
		r = -ENOMEM;
		goto out;
	}
	atomic_inc(&kevent_marks);
	fsnotify_init_mark(&mark->mark, u->group);
	k->inode.mask = s->events;
	mark->mark.mask = s->events;
	if (S_ISDIR(file_inode(file)->i_mode))
		mark->mark.mask |= FS_EVENT_ON_CHILD;
	RCU_INIT_POINTER(mark->k, k);
	r = fsnotify_add_inode_mark(&mark->mark, file_inode(file), 0);
	if (r) {
		RCU_INIT_POINTER(mark->k, NULL);
		fsnotify_put_mark(&mark->mark);
		goto out;
	}
	k->inode.mark = mark;
out:
	fput(file);
	return r;
}

static void kevent_inode_remove(struct kevent *k)
{
	struct kevent_mark *mark = k->inode.mark;

	if (!mark)
		return;
	/* The interest itself is freed by RCU, after who has seen it here. */
	RCU_INIT_POINTER(mark->k, NULL);
	fsnotify_destroy_mark(&mark->mark, k->user->group);
	fsnotify_put_mark(&mark->mark);
}

const struct kevent_source_ops kevent_inode_ops = {
	.add = kevent_inode_add,
	.remove = kevent_inode_remove,
	.events = KEVENT_INODE_EVENTS,
};

/* Context: process, no interest left. */
void kevent_inode_free_group(struct kevent_user *u)
{
	if (!u->group)
		return;
	/* Marks hold the group; their functions are ours. */
	fsnotify_wait_marks_destroyed();
	fsnotify_put_group(u->group);
}

/*
 * Who evicts an inode may hold one of its marks a little longer than
 * fsnotify_wait_marks_destroyed() waits. Context: module exit.
 */
void kevent_inode_exit(void)
{
	while (atomic_read(&kevent_marks)) {
		usleep_range(1000, 2000);
		fsnotify_wait_marks_destroyed();
	}
}
