// SPDX-License-Identifier: GPL-2.0-only
/*
 * KEVENT_OP_SENDFILE and _PATH: a header, pages of a file by reference, a trailer.
 *
 * Pages in the cache go out at once. One that is missing is read by a worker: it
 * starts the reading of a window and waits for its first page, and then the
 * operation goes on. At most KEVENT_READERS of them wait for the disks of one
 * user; the operations themselves wait on no thread. Where pages may not be handed out
 * (file systems that check with a server, DAX), or do not come into the cache,
 * the worker reads into a buffer.
 */
#include <linux/bvec.h>
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/fadvise.h>
#include <linux/fs.h>
#include <linux/kthread.h>
#include <linux/magic.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/namei.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <net/sock.h>

#include "compat.h"
#include "core.h"

#define KEVENT_READERS	16		/* of one user, at a time */
#define KEVENT_ALL_READERS 256
#define KEVENT_WINDOW	(2 << 20)	/* bytes whose reading is started at once */
#define KEVENT_COPY	(128 << 10)	/* bytes read into a buffer */
#define KEVENT_BURST	(4 << 20)	/* bytes sent in one turn */
#define KEVENT_OPEN_TRIES 100
/* So that with the header and the trailer it is a number. */
#define KEVENT_MAX_LENGTH (LLONG_MAX - 2 * (u64)MAX_RW_COUNT)

struct kevent_read {
	struct work_struct work;
	struct list_head waiting; /* account->waiting_reads; kevent_read_lock */
	struct kevent_account *account; /* held, once it is queued */
	struct kevent_op *op;	/* NULL: nobody wants it; kevent_read_lock */
	struct file *file;	/* held */
	const struct cred *cred; /* held, of the submitter; it reads as he may */
	struct mem_cgroup *memcg; /* held, his */
	struct cgroup_subsys_state *io; /* held, his: what reading is charged to */
	loff_t at;
	char *data;		/* of a copy */
	size_t room;
	ssize_t got;

	/* Or it opens a file. */
	char *name;
};

static DEFINE_SPINLOCK(kevent_read_lock);
static struct workqueue_struct *kevent_readers;

/* ---- Reading ---- */

static void kevent_read_free(struct kevent_read *read)
{
	if (!read)
		return;
	if (read->file)
		fput(read->file);
	kvfree(read->data);
	kfree(read->name);
	put_cred(read->cred);
	mem_cgroup_put(read->memcg);
	if (read->io)
		css_put(read->io);
	if (read->account)
		kevent_account_put(read->account);
	kfree(read);
}

/*
 * Whose limits of input and output hold for what a process reads, with a reference;
 * NULL without such groups. As get_mem_cgroup_from_mm(). Context: process.
 */
static struct cgroup_subsys_state *kevent_io_cgroup(struct mm_struct *mm)
{
	struct cgroup_subsys_state *css = NULL;
#if defined(CONFIG_BLK_CGROUP) && defined(CONFIG_MEMCG)
	struct task_struct *owner;

	rcu_read_lock();
	owner = rcu_dereference(mm->owner);
	if (owner)
		css = task_css(owner, io_cgrp_id);
	if (css && !css_tryget(css))
		css = NULL;
	rcu_read_unlock();
#endif
	return css;
}

/* Context: process with the submitter's memory. */
static struct kevent_read *kevent_read_alloc(const struct kevent_op *op)
{
	struct kevent_read *read = kzalloc(sizeof(*read), GFP_KERNEL_ACCOUNT);

	if (!read)
		return NULL;
	INIT_LIST_HEAD(&read->waiting);
	read->cred = get_cred(op->cred);
	read->memcg = get_mem_cgroup_from_mm(current->mm);
	read->io = kevent_io_cgroup(current->mm);
	return read;
}

/*
 * A worker has ended, or was never begun: the next one's turn. Context: process,
 * kevent_read_lock held.
 */
static void kevent_read_next(struct kevent_account *account)
{
	struct kevent_read *read =
		list_first_entry_or_null(&account->waiting_reads,
					 struct kevent_read, waiting);

	if (!read) {
		account->reads--;
		return;
	}
	list_del_init(&read->waiting);
	queue_work(kevent_readers, &read->work);
}

/* May the pages in the cache be handed out without asking the file system? */
static bool kevent_is_local(const struct inode *inode)
{
	const struct super_block *sb = inode->i_sb;

	return sb->s_bdev || sb->s_magic == TMPFS_MAGIC ||
	       sb->s_magic == RAMFS_MAGIC || sb->s_magic == BTRFS_SUPER_MAGIC;
}

/*
 * Opens a file beneath a directory as the current credentials may. With
 * LOOKUP_CACHED -EAGAIN if that would, or might, have to wait. Context: process.
 */
static struct file *kevent_open_beneath(struct file *directory,
					const char *name, unsigned int flags)
{
	const struct path *at = &directory->f_path;
	struct file *file;
	struct path path;
	umode_t mode;
	int r;

	/* To the lookup "" is the directory, and so is the slash of "/x". */
	if (!*name || *name == '/')
		return ERR_PTR(*name ? -EXDEV : -ENOENT);
	r = vfs_path_lookup(at->dentry, at->mnt, name,
			    flags | LOOKUP_FOLLOW | LOOKUP_BENEATH |
				    LOOKUP_NO_MAGICLINKS,
			    &path);
	if (r)
		return ERR_PTR(r);
	/* dentry_open() itself checks nothing of this. */
	mode = d_inode(path.dentry)->i_mode;
	if (!S_ISREG(mode))
		r = S_ISDIR(mode) ? -EISDIR : -EINVAL;
	else if (flags & LOOKUP_CACHED && !kevent_is_local(d_inode(path.dentry)))
		r = -EAGAIN;
	else
		r = path_permission(&path, MAY_READ | MAY_OPEN);
	/* A lease, which would be waited for, is EAGAIN. */
	file = r ? ERR_PTR(r) :
		   dentry_open(&path,
			       O_RDONLY | O_LARGEFILE |
				       (flags & LOOKUP_CACHED ? O_NONBLOCK : 0),
			       current_cred());
	path_put(&path);
	if (IS_ERR(file))
		return file;
	file->f_flags &= ~O_NONBLOCK; /* nobody else has it yet */
	r = kevent_opened(file);
	if (r) {
		fput(file);
		return ERR_PTR(r);
	}
	return file;
}

/*
 * As kernel_read(), but by way of the page cache in any case: a direct read wants
 * other memory. Context: process.
 */
static ssize_t kevent_read_some(struct file *file, void *to, size_t bytes,
				loff_t at)
{
	struct kvec vec = { to, bytes };
	struct iov_iter iter;
	struct kiocb kiocb;

	if (!file->f_op->read_iter || !(file->f_mode & FMODE_CAN_READ))
		return -EINVAL;
	init_sync_kiocb(&kiocb, file);
	kiocb.ki_flags &= ~IOCB_DIRECT;
	kiocb.ki_pos = at;
	iov_iter_kvec(&iter, ITER_DEST, &vec, 1, bytes);
	return file->f_op->read_iter(&kiocb, &iter);
}

/* What a lookup in a worker brings; NULL and `got` if it fails. */
static struct file *kevent_open_work(struct kevent_read *read)
{
	int tries = KEVENT_OPEN_TRIES;
	struct file *file;

	/* Of a path with ".." it says EAGAIN if anything was renamed meanwhile. */
	do {
		file = kevent_open_beneath(read->file, read->name, 0);
	} while (PTR_ERR(file) == -EAGAIN && --tries);
	if (!IS_ERR(file))
		return file;
	read->got = tries ? PTR_ERR(file) : -EXDEV;
	return NULL;
}

/* Context: worker. May wait for a disk for ever. */
static void kevent_read_work(struct work_struct *work)
{
	struct kevent_read *read =
		container_of(work, struct kevent_read, work);
	const struct cred *saved = override_creds(read->cred);
	struct mem_cgroup *memcg = set_active_memcg(read->memcg);
	struct file *opened = NULL;
	struct kevent_op *op;
	char byte;

	kthread_associate_blkcg(read->io);
	if (read->name) {
		opened = kevent_open_work(read);
	} else if (read->data) {
		read->got = kevent_read_some(read->file, read->data,
					     read->room, read->at);
	} else {
		vfs_fadvise(read->file, read->at, KEVENT_WINDOW,
			    POSIX_FADV_WILLNEED);
		read->got = kevent_read_some(read->file, &byte, 1, read->at);
	}
	kthread_associate_blkcg(NULL);
	set_active_memcg(memcg);
	revert_creds(saved);
	spin_lock(&kevent_read_lock);
	kevent_read_next(read->account);
	op = read->op;
	if (op) {
		op->read = NULL;
		op->missed = !read->data && !read->name;
		if (opened) {
			op->source = opened;
			opened = NULL;
		} else if (read->got < 0) {
			/* EAGAIN is what waits for the socket. */
			op->read_error = read->got == -EAGAIN ? -EIO :
								read->got;
		} else if (read->data && read->got) {
			op->buffer = read;
			read = NULL;
		} else if (read->data) {
			/* Sooner than its size says. */
			op->ended = true;
		}
		kevent_op_wake(op);
	}
	spin_unlock(&kevent_read_lock);
	if (opened)
		fput(opened);
	kevent_read_free(read);
}

/* Is a read under way? If not its worker has let go of `op`. Context: process. */
static bool kevent_read_busy(struct kevent_op *op)
{
	bool busy;

	spin_lock(&kevent_read_lock);
	busy = op->read;
	spin_unlock(&kevent_read_lock);
	return busy;
}

/* Nothing of a read comes to `op` any more. Context: process, user->mutex held. */
void kevent_read_detach(struct kevent_op *op)
{
	struct kevent_read *read, *unwanted = NULL;

	spin_lock(&kevent_read_lock);
	read = op->read;
	op->read = NULL;
	if (read) {
		read->op = NULL;
		if (!list_empty(&read->waiting)) {
			list_del_init(&read->waiting);
			unwanted = read;
		} else if (cancel_work(&read->work)) {
			kevent_read_next(read->account);
			unwanted = read;
		}
	}
	spin_unlock(&kevent_read_lock);
	kevent_read_free(unwanted);
	kevent_read_free(op->buffer);
	op->buffer = NULL;
}

/* Gives it to a worker, in its turn. Context: process, user->mutex held. */
static void kevent_read_queue(struct kevent_op *op, struct kevent_read *read)
{
	struct kevent_account *account = op->user->account;

	INIT_WORK(&read->work, kevent_read_work);
	kevent_account_hold(account);
	read->account = account;
	read->op = op;
	op->read = read;
	op->reads = true;
	op->data[0]++;
	if (!op->opening) {
		/* What the socket says meanwhile does not matter. */
		while (!kevent_op_sleep(op))
			;
	}
	spin_lock(&kevent_read_lock);
	if (account->reads < KEVENT_READERS) {
		account->reads++;
		queue_work(kevent_readers, &read->work);
	} else {
		list_add_tail(&read->waiting, &account->waiting_reads);
	}
	spin_unlock(&kevent_read_lock);
}

/* Has a worker read. Context: process, user->mutex held. */
static s64 kevent_read_start(struct kevent_op *op, loff_t at, u64 left)
{
	struct kevent_read *read = kevent_read_alloc(op);

	if (!read)
		return -ENOMEM;
	if (op->by_copy) {
		read->room = min_t(u64, left, KEVENT_COPY);
		read->data = kvmalloc(read->room, GFP_KERNEL_ACCOUNT);
		if (!read->data) {
			kevent_read_free(read);
			return -ENOMEM;
		}
	}
	read->file = get_file(op->source);
	read->at = at;
	kevent_read_queue(op, read);
	return KEVENT_WAITS;
}

/* ---- Sending ---- */

/*
 * Sends pages that are in the cache from `at` on. -ENODATA: the first is not; 0:
 * the file has ended. Context: as kevent_try_sendfile().
 */
static int kevent_send_cached(struct kevent_op *op, struct socket *sock,
			      loff_t at, u64 left, bool more)
{
	struct address_space *mapping = op->source->f_mapping;
	struct bio_vec pages[KEVENT_PAGES];
	size_t bytes = 0, rest;
	unsigned int n, used;
	loff_t size;
	int r = 0;

	for (n = 0; n < KEVENT_PAGES && bytes < left; n++) {
		const pgoff_t index = (at + bytes) >> PAGE_SHIFT;
		const u32 offset = offset_in_page(at + bytes);
		struct folio *folio = kevent_get_folio(mapping, index);

		if (!folio)
			break;
		if (!folio_test_uptodate(folio) ||
		    PageHWPoison(folio_file_page(folio, index))) {
			folio_put(folio);
			break;
		}
		folio_mark_accessed(folio);
		pages[n].bv_page = folio_file_page(folio, index);
		pages[n].bv_offset = offset;
		pages[n].bv_len = min_t(u64, PAGE_SIZE - offset, left - bytes);
		bytes += pages[n].bv_len;
	}
	if (!n)
		return -ENODATA;
	/* After the pages were found: what a truncation clears lies behind it. */
	size = i_size_read(mapping->host);
	rest = size > at ? min_t(u64, bytes, size - at) : 0;
	if (rest < bytes) {
		bytes = rest;
		left = rest;
		more = false;
	}
	for (used = 0; rest; used++) {
		pages[used].bv_len = min_t(size_t, pages[used].bv_len, rest);
		rest -= pages[used].bv_len;
	}
	if (used)
		r = kevent_send_pages(sock, pages, used, bytes,
				      more || bytes < left);
	while (n)
		put_page(pages[--n].bv_page);
	return r;
}

/* Sends what has been read. Context: the same. */
static int kevent_send_buffer(struct kevent_op *op, struct socket *sock,
			      loff_t at, u64 left, bool more)
{
	struct kevent_read *read = op->buffer;
	const size_t skip = at - read->at;
	size_t bytes = min_t(u64, read->got - skip, left);
	struct msghdr msg = {
		.msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL |
			     (more || bytes < left ? MSG_MORE : 0),
	};
	struct kvec vec = { read->data + skip, bytes };
	int r;

	r = kernel_sendmsg(sock, &msg, &vec, 1, bytes);
	if (r > 0 && skip + r == read->got) {
		kevent_read_free(read);
		op->buffer = NULL;
	}
	return r;
}

/* Sends some of the file. 0: it has ended. Context: the same. */
static s64 kevent_send_file(struct kevent_op *op, struct socket *sock,
			    loff_t at, u64 left, bool more)
{
	const loff_t size = i_size_read(file_inode(op->source));
	int r;

	if (op->reads && kevent_read_busy(op)) {
		/* Woken by the socket. */
		return kevent_op_sleep(op) ? KEVENT_WAITS : -ERESTART;
	}
	if (at >= size || op->ended)
		return 0;
	if (left > size - at) {
		left = size - at;
		more = false; /* the trailer will not be sent */
	}
	if (op->buffer)
		return kevent_send_buffer(op, sock, at, left, more);
	if (op->read_error)
		return op->read_error;
	if (!op->by_copy) {
		r = kevent_send_cached(op, sock, at, left, more);
		if (r != -ENODATA) {
			op->missed = false;
			return r;
		}
		/* It was read just now, and is not there: it never will be. */
		op->by_copy = op->missed;
	}
	return kevent_read_start(op, at, left);
}

/* The file is open: what can be known now. Context: the same. */
static int kevent_source_set(struct kevent_op *op)
{
	const struct kevent_parts *parts = &op->parts;
	const struct inode *inode = file_inode(op->source);
	const loff_t size = i_size_read(inode);
	loff_t offset = op->offset;
	int r;

	op->data[1] = op->opening ? size : 0;
	if (op->length == U64_MAX)
		op->length = size > offset ? size - offset : 0;
	if (op->length > KEVENT_MAX_LENGTH)
		return -EOVERFLOW;
	op->total = op->length + parts->header_bytes + parts->trailer_bytes;
	/* Locks, security modules, fanotify: asked once, for all of it. */
	r = rw_verify_area(READ, op->source, &offset,
			   min_t(u64, op->length, MAX_RW_COUNT));
	if (r < 0)
		return r == -EAGAIN ? -EACCES : r;
	op->by_copy = !kevent_is_local(inode) || IS_DAX(inode) ||
		      op->source->f_flags & O_DIRECT;
	file_accessed(op->source);
	op->opening = false;
	return 0;
}

/* Context: process with the opener's memory, user->mutex held. */
static s64 kevent_send_parts(struct kevent_op *op, struct socket *sock)
{
	const struct kevent_parts *parts = &op->parts;
	s64 burst = KEVENT_BURST;
	s64 r = 0;
	u64 body;

	if (op->opening) {
		/* The socket may wake it, too. */
		while (op->reads && kevent_read_busy(op))
			if (kevent_op_sleep(op))
				return KEVENT_WAITS;
		r = op->source ? kevent_source_set(op) : op->read_error;
		if (r)
			return r;
	}
	body = parts->header_bytes + op->length;
	while (op->done < op->total && r >= 0) {
		if (burst <= 0)
			return kevent_op_yield(op);
		if (op->done < parts->header_bytes) {
			r = kevent_send_bytes(op, sock,
					      parts->header + op->done,
					      parts->header_bytes - op->done,
					      op->total > parts->header_bytes);
		} else if (op->done < body) {
			r = kevent_send_file(op, sock,
					     op->offset + op->done -
						     parts->header_bytes,
					     body - op->done,
					     parts->trailer_bytes);
			if (r == KEVENT_WAITS)
				return r;
			if (r == -ERESTART) {
				r = 0;
				continue;
			}
			if (!r)
				break;
			if (r > 0) {
				op->done += r;
				burst -= r;
			}
		} else {
			r = kevent_send_bytes(op, sock,
					      parts->trailer + op->done - body,
					      op->total - op->done, false);
		}
	}
	if (r == -EAGAIN || kevent_faulted(r))
		return r;
	return op->done || r >= 0 ? op->done : r;
}

/* Context: the same. */
s64 kevent_try_sendfile(struct kevent_op *op, struct socket *sock)
{
	const s64 before = op->done;
	const s64 r = kevent_send_parts(op, sock);

	if (op->parts.progress && op->done != before &&
	    (r == -EAGAIN || r == KEVENT_WAITS || kevent_faulted(r))) {
		u64 __user *to = u64_to_user_ptr(op->parts.progress);

		if (put_user(op->done, to) && !pagefault_disabled())
			op->parts.progress = 0;
	}
	return r;
}

/* Opens a file, or has a worker do so. Context: process, user->mutex held. */
static int kevent_open_start(struct kevent_op *op, u64 address)
{
	struct kevent_read *read;
	struct kevent_path path;
	struct file *file;
	int r;

	if (copy_from_user(&path, u64_to_user_ptr(address), sizeof(path)))
		return -EFAULT;
	if (path.flags || path.reserved[0] || path.reserved[1])
		return -EINVAL;
	read = kevent_read_alloc(op);
	if (!read)
		return -ENOMEM;
	read->name = strndup_user(u64_to_user_ptr(path.path), PATH_MAX);
	if (IS_ERR(read->name)) {
		r = PTR_ERR(read->name);
		read->name = NULL;
		/* Of a string that is too long it says EINVAL. */
		if (r == -EINVAL)
			r = -ENAMETOOLONG;
		goto free;
	}
	read->file = fget_raw(path.directory);
	r = -EBADF;
	if (!read->file)
		goto free;
	r = -ENOTDIR;
	if (!d_can_lookup(read->file->f_path.dentry))
		goto free;
	file = kevent_open_beneath(read->file, read->name, LOOKUP_CACHED);
	op->opening = true;
	if (PTR_ERR(file) == -EAGAIN) {
		kevent_read_queue(op, read);
		return 0;
	}
	r = PTR_ERR_OR_ZERO(file);
	if (!r)
		op->source = file;
free:
	kevent_read_free(read);
	return r;
}

/* Takes the arguments. Context: process, user->mutex held. */
int kevent_sendfile_set(struct kevent_op *op, const struct kevent_sqe *s)
{
	struct kevent_parts *parts = &op->parts;
	loff_t offset = s->arg[0];
	bool all = false;

	op->offset = offset;
	op->length = s->arg[1];
	if (offset < 0)
		return -EINVAL;
	if (s->opcode == KEVENT_OP_SENDFILE_PATH && op->length == U64_MAX)
		all = true;
	else if (op->length > LLONG_MAX - offset)
		return -EINVAL;
	if (s->opcode == KEVENT_OP_SENDFILE && s->arg[3] > INT_MAX)
		return -EINVAL;
	if (s->arg[2] &&
	    copy_from_user(parts, u64_to_user_ptr(s->arg[2]), sizeof(*parts)))
		return -EFAULT;
	if (parts->reserved[0] || parts->reserved[1] || parts->reserved[2])
		return -EINVAL;
	if (parts->header_bytes > MAX_RW_COUNT ||
	    parts->trailer_bytes > MAX_RW_COUNT ||
	    (!all && op->length > KEVENT_MAX_LENGTH))
		return -EINVAL;
	if (s->opcode == KEVENT_OP_SENDFILE_PATH)
		return kevent_open_start(op, s->arg[3]);
	op->total = op->length + parts->header_bytes + parts->trailer_bytes;
	if (!op->length)
		return 0;
	op->source = fget(s->arg[3]);
	if (!op->source || !(op->source->f_mode & FMODE_READ))
		return -EBADF;
	if (!S_ISREG(file_inode(op->source)->i_mode))
		return -EINVAL;
	return kevent_source_set(op);
}

int kevent_read_init(void)
{
	kevent_readers = alloc_workqueue("kevent_read", WQ_UNBOUND,
					 KEVENT_ALL_READERS);
	return kevent_readers ? 0 : -ENOMEM;
}

/* Waits for reads that nobody wants any more. */
void kevent_read_exit(void)
{
	destroy_workqueue(kevent_readers);
}
