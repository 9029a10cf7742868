/* SPDX-License-Identifier: GPL-2.0-only */
/* What differs between the kernels we build for, 6.1 and newer. */
#ifndef _KEVENT_COMPAT_H
#define _KEVENT_COMPAT_H

#include <linux/mm.h>
#include <linux/bvec.h>
#include <linux/fsnotify.h>
#include <linux/ima.h>
#include <linux/namei.h>
#include <linux/security.h>
#include <linux/net.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/uio.h>
#include <linux/version.h>
#include <net/sock.h>
#include <net/tcp.h>

static inline void kevent_vm_flags_set(struct vm_area_struct *vma,
				       unsigned long flags)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_set(vma, flags);
#else
	vma->vm_flags |= flags;
#endif
}

static inline void kevent_vm_flags_clear(struct vm_area_struct *vma,
					 unsigned long flags)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_clear(vma, flags);
#else
	vma->vm_flags &= ~flags;
#endif
}

/* Context: siglock of current held. */
static inline int kevent_dequeue_signal(sigset_t *mask, kernel_siginfo_t *info)
{
	enum pid_type type;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	return dequeue_signal(mask, info, &type);
#else
	return dequeue_signal(current, mask, info, &type);
#endif
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
/* Exported, but declared in fs/internal.h. */
int vfs_path_lookup(struct dentry *dentry, struct vfsmount *mnt,
		    const char *name, unsigned int flags, struct path *path);
#endif

/* One span of user memory. `iov` must live as long as `iter`. */
static inline int kevent_import(int direction, void __user *address,
				size_t bytes, struct iovec *iov,
				struct iov_iter *iter)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	return import_ubuf(direction, address, bytes, iter);
#else
	return import_single_range(direction, address, bytes, iov, iter);
#endif
}

/* With a reference, or NULL if it is not in the cache. */
static inline struct folio *kevent_get_folio(struct address_space *mapping,
					     pgoff_t index)
{
	struct folio *folio = __filemap_get_folio(mapping, index, 0, 0);

	return IS_ERR_OR_NULL(folio) ? NULL : folio;
}

/* What open(2) does after dentry_open(). Context: process. */
static inline int kevent_opened(struct file *file)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
	return security_file_post_open(file, MAY_READ | MAY_OPEN);
#else
	int r = ima_file_check(file, MAY_READ | MAY_OPEN);

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
	if (!r)
		fsnotify_open(file);
#endif
	return r;
#endif
}

/*
 * Sends pages by reference, without blocking. Returns bytes, at least one, or a
 * negative errno. Context: process.
 */
static inline int kevent_send_pages(struct socket *sock, struct bio_vec *pages,
				    unsigned int count, size_t bytes, bool more)
{
	const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	struct msghdr msg = {
		.msg_flags = flags | MSG_SPLICE_PAGES | (more ? MSG_MORE : 0),
	};

	iov_iter_bvec(&msg.msg_iter, ITER_SOURCE, pages, count, bytes);
	return sock_sendmsg(sock, &msg);
#else
	/* Not past a BPF map, which looks at what is sent. */
	const bool locked = READ_ONCE(sock->ops)->sendpage_locked &&
			    READ_ONCE(sock->sk->sk_prot)->sendpage == tcp_sendpage;
	const loff_t none = 0;
	unsigned int i;
	int sent = 0, r;

	/* As of splice(2): unlike sock_sendmsg() the rest asks no security module. */
	r = sock->file ? rw_verify_area(WRITE, sock->file, &none, bytes) : 0;
	if (r < 0)
		return r;
	if (locked)
		lock_sock(sock->sk);
	for (i = 0; i < count; i++) {
		const struct bio_vec *p = &pages[i];
		const int f = i + 1 < count ?
				      flags | MSG_MORE | MSG_SENDPAGE_NOTLAST :
				      flags | (more ? MSG_MORE : 0);

		r = locked ? kernel_sendpage_locked(sock->sk, p->bv_page,
						    p->bv_offset, p->bv_len, f) :
			     kernel_sendpage(sock, p->bv_page, p->bv_offset,
					     p->bv_len, f);
		if (r < 0)
			break;
		sent += r;
		if (r < p->bv_len)
			break;
	}
	if (locked)
		release_sock(sock->sk);
	return sent ? sent : r;
#endif
}

#endif /* _KEVENT_COMPAT_H */
