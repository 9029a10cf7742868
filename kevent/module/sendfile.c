// SPDX-License-Identifier: GPL-2.0-only
/*
 * KEVENT_OP_SENDFILE: a header, pages of a file by reference, a trailer.
 *
 * Pages in the cache go out at once. One that is missing is read by a worker: it
 * starts the reading of a window and waits for its first page, and then the
 * operation goes on. At most KEVENT_READERS of them wait for disks; the
 * operations themselves wait on no thread. Where pages may not be handed out
 * (file systems that check with a server, DAX), or do not come into the cache,
 * the worker reads into a buffer.
 */
#include <linux/bvec.h>
#include <linux/fadvise.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <net/sock.h>

#include "compat.h"
#include "core.h"

#define KEVENT_READERS	16
#define KEVENT_WINDOW	(2 << 20)	/* bytes whose reading is started at once */
#define KEVENT_COPY	(128 << 10)	/* bytes read into a buffer */
#define KEVENT_BURST	(4 << 20)	/* bytes sent in one turn */
#define KEVENT_PAGES	32		/* handed to the socket at a time */

struct kevent_read {
	struct work_struct work;
	struct kevent_op *op;	/* NULL: nobody wants it; kevent_read_lock */
	struct file *file;	/* held */
	loff_t at;
	char *data;		/* of a copy */
	size_t room;
	ssize_t got;
};

static DEFINE_SPINLOCK(kevent_read_lock);
static struct workqueue_struct *kevent_readers;

/* ---- Reading ---- */

static void kevent_read_free(struct kevent_read *read)
{
	if (!read)
		return;
	fput(read->file);
	kvfree(read->data);
	kfree(read);
}

/* Context: worker. May wait for a disk for ever. */
static void kevent_read_work(struct work_struct *work)
{
	struct kevent_read *read =
		container_of(work, struct kevent_read, work);
	loff_t at = read->at;
	struct kevent_op *op;
	char byte;

	if (read->data) {
		read->got = kernel_read(read->file, read->data, read->room,
					&at);
	} else {
		vfs_fadvise(read->file, at, KEVENT_WINDOW,
			    POSIX_FADV_WILLNEED);
		read->got = kernel_read(read->file, &byte, 1, &at);
	}
	spin_lock(&kevent_read_lock);
	op = read->op;
	if (op) {
		op->read = NULL;
		op->missed = !read->data;
		if (read->got < 0) {
			op->read_error = read->got;
		} else if (read->data && read->got) {
			op->buffer = read;
			read = NULL;
		}
		kevent_op_wake(op);
	}
	spin_unlock(&kevent_read_lock);
	kevent_read_free(read);
}

/* Nothing of a read comes to `op` any more. Context: process, user->mutex held. */
void kevent_read_detach(struct kevent_op *op)
{
	spin_lock(&kevent_read_lock);
	if (op->read)
		op->read->op = NULL;
	op->read = NULL;
	spin_unlock(&kevent_read_lock);
	kevent_read_free(op->buffer);
	op->buffer = NULL;
}

/* Has a worker read. Context: process, user->mutex held. */
static s64 kevent_read_start(struct kevent_op *op, loff_t at, u64 left)
{
	struct kevent_read *read = kzalloc(sizeof(*read), GFP_KERNEL_ACCOUNT);

	if (!read)
		return -ENOMEM;
	if (op->by_copy) {
		read->room = min_t(u64, left, KEVENT_COPY);
		read->data = kvmalloc(read->room, GFP_KERNEL_ACCOUNT);
		if (!read->data) {
			kfree(read);
			return -ENOMEM;
		}
	}
	INIT_WORK(&read->work, kevent_read_work);
	read->op = op;
	read->file = get_file(op->source);
	read->at = at;
	op->read = read;
	op->data++;
	/* What the socket says meanwhile does not matter. */
	while (!kevent_op_sleep(op))
		;
	queue_work(kevent_readers, &read->work);
	return KEVENT_WAITS;
}

/* ---- Sending ---- */

/* May the pages in the cache be handed out without asking the file system? */
static bool kevent_pages_are_true(const struct file *file)
{
	const struct inode *inode = file_inode(file);
	const struct super_block *sb = inode->i_sb;

	if (IS_DAX(inode) || file->f_flags & O_DIRECT)
		return false;
	return sb->s_bdev || sb->s_magic == TMPFS_MAGIC ||
	       sb->s_magic == RAMFS_MAGIC || sb->s_magic == BTRFS_SUPER_MAGIC;
}

/*
 * Sends pages that are in the cache from `at` on. -ENODATA: the first is not.
 * Context: as kevent_try_sendfile().
 */
static int kevent_send_cached(struct kevent_op *op, struct socket *sock,
			      loff_t at, u64 left, bool more)
{
	struct address_space *mapping = op->source->f_mapping;
	struct bio_vec pages[KEVENT_PAGES];
	size_t bytes = 0;
	unsigned int n;
	int r;

	for (n = 0; n < KEVENT_PAGES && bytes < left; n++) {
		const pgoff_t index = (at + bytes) >> PAGE_SHIFT;
		const u32 offset = offset_in_page(at + bytes);
		struct folio *folio = kevent_get_folio(mapping, index);

		if (!folio)
			break;
		if (!folio_test_uptodate(folio)) {
			folio_put(folio);
			break;
		}
		pages[n].bv_page = folio_file_page(folio, index);
		pages[n].bv_offset = offset;
		pages[n].bv_len = min_t(u64, PAGE_SIZE - offset, left - bytes);
		bytes += pages[n].bv_len;
	}
	if (!n)
		return -ENODATA;
	r = kevent_send_pages(sock, pages, n, bytes, more || bytes < left);
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

	if (op->read) {
		/* Woken by the socket. */
		return kevent_op_sleep(op) ? KEVENT_WAITS : -ERESTART;
	}
	if (at >= size)
		return 0;
	if (op->buffer)
		return kevent_send_buffer(op, sock, at, left, more);
	if (op->read_error)
		return op->read_error;
	if (left > size - at) {
		left = size - at;
		more = false; /* the trailer will not be sent */
	}
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

/* Context: process with the opener's memory, user->mutex held. */
static s64 kevent_send_parts(struct kevent_op *op, struct socket *sock)
{
	const struct kevent_parts *parts = &op->parts;
	const u64 body = parts->header_bytes + op->length;
	s64 burst = KEVENT_BURST;
	s64 r = 0;

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
	if (r == -EAGAIN)
		return r;
	return op->done || r >= 0 ? op->done : r;
}

/* Context: the same. */
s64 kevent_try_sendfile(struct kevent_op *op, struct socket *sock)
{
	const s64 before = op->done;
	const s64 r = kevent_send_parts(op, sock);

	if (op->parts.progress && op->done != before &&
	    (r == -EAGAIN || r == KEVENT_WAITS)) {
		u64 __user *to = u64_to_user_ptr(op->parts.progress);

		if (put_user(op->done, to))
			op->parts.progress = 0;
	}
	return r;
}

/* Takes the arguments. Context: process, user->mutex held. */
int kevent_sendfile_set(struct kevent_op *op, const struct kevent_sqe *s)
{
	struct kevent_parts *parts = &op->parts;
	loff_t offset = s->arg[0];
	int r;

	op->offset = offset;
	op->length = s->arg[1];
	if (offset < 0 || op->length > LLONG_MAX - offset ||
	    s->arg[3] > INT_MAX)
		return -EINVAL;
	if (s->arg[2] &&
	    copy_from_user(parts, u64_to_user_ptr(s->arg[2]), sizeof(*parts)))
		return -EFAULT;
	if (parts->reserved[0] || parts->reserved[1] || parts->reserved[2])
		return -EINVAL;
	if (parts->header_bytes > MAX_RW_COUNT ||
	    parts->trailer_bytes > MAX_RW_COUNT ||
	    op->length > LLONG_MAX - 2 * (u64)MAX_RW_COUNT)
		return -EINVAL;
	op->total = op->length + parts->header_bytes + parts->trailer_bytes;
	if (!op->length)
		return 0;
	op->source = fget(s->arg[3]);
	if (!op->source || !(op->source->f_mode & FMODE_READ))
		return -EBADF;
	if (!S_ISREG(file_inode(op->source)->i_mode))
		return -EINVAL;
	/* Locks, security modules, fanotify: asked once, for all of it. */
	r = rw_verify_area(READ, op->source, &offset,
			   min_t(u64, op->length, MAX_RW_COUNT));
	if (r < 0)
		return r;
	op->by_copy = !kevent_pages_are_true(op->source);
	file_accessed(op->source);
	return 0;
}

int kevent_read_init(void)
{
	kevent_readers = alloc_workqueue("kevent_read", WQ_UNBOUND,
					 KEVENT_READERS);
	return kevent_readers ? 0 : -ENOMEM;
}

/* Waits for reads that nobody wants any more. */
void kevent_read_exit(void)
{
	destroy_workqueue(kevent_readers);
}
