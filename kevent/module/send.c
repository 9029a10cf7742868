// SPDX-License-Identifier: GPL-2.0-only
/* KEVENT_OP_SEND, and KEVENT_OP_CONNECT. */
#include <linux/net.h>
#include <linux/slab.h>
#include <linux/socket.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <net/sock.h>

#include "compat.h"
#include "core.h"
#include "op.h"

/* Sends from where `msg` stands until the socket is full. */
static s64 kevent_send_rest(struct kevent_op *op, struct socket *sock,
			    struct msghdr *msg)
{
	for (;;) {
		int r = sock_sendmsg(sock, msg);

		if (r < 0)
			return r;
		op->done += r;
		if (!msg_data_left(msg))
			return 0;
		if (!r || sock->type != SOCK_STREAM)
			return -EMSGSIZE;
	}
}

/* Takes references to pages of `iter` and moves on. Returns how many. */
static unsigned int kevent_get_pages(struct iov_iter *iter,
				     struct bio_vec *to, unsigned int max,
				     size_t *bytes)
{
	unsigned int n = 0;

	*bytes = 0;
	while (n < max && iov_iter_count(iter)) {
		struct page *pages[KEVENT_PAGES];
		size_t offset;
		ssize_t got;
		unsigned int i;

		got = iov_iter_get_pages2(iter, pages, SIZE_MAX, max - n,
					  &offset);
		if (got <= 0)
			break;
		*bytes += got;
		for (i = 0; got; i++, n++) {
			to[n].bv_page = pages[i];
			to[n].bv_offset = offset;
			to[n].bv_len = min_t(size_t, got, PAGE_SIZE - offset);
			got -= to[n].bv_len;
			offset = 0;
		}
	}
	return n;
}

/*
 * The same by reference to the user's pages. Others than TCP have ways of their own
 * to wait, and to cut messages.
 */
static s64 kevent_send_references(struct kevent_op *op, struct socket *sock,
				  struct msghdr *msg)
{
	const bool more = msg->msg_flags & MSG_MORE;
	struct iov_iter *iter = &msg->msg_iter;

	while (iov_iter_count(iter)) {
		struct bio_vec pages[KEVENT_PAGES];
		unsigned int n;
		size_t bytes;
		int r;

		n = kevent_get_pages(iter, pages, KEVENT_PAGES, &bytes);
		if (!n) /* it finds what is wrong, or is able to copy */
			return kevent_send_rest(op, sock, msg);
		r = kevent_send_pages(sock, pages, n, bytes,
				      more || iov_iter_count(iter));
		while (n)
			put_page(pages[--n].bv_page);
		if (r <= 0)
			return r ?: -EMSGSIZE;
		op->done += r;
		iov_iter_revert(iter, bytes - r);
	}
	return 0;
}

static s64 kevent_send_iter(struct kevent_op *op, struct socket *sock,
			    struct msghdr *msg)
{
	/* Who takes references waits for pages all the same. */
	if (op->events & KEVENT_SEND_REFERENCE && !pagefault_disabled() &&
	    msg_data_left(msg) && kevent_is_plain_tcp(sock->sk))
		return kevent_send_references(op, sock, msg);
	return kevent_send_rest(op, sock, msg);
}

s64 kevent_send_bytes(struct kevent_op *op, struct socket *sock, u64 address,
		      u64 bytes, bool more)
{
	struct msghdr msg = {
		.msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0),
	};
	struct iovec iov;
	int r;

	r = kevent_import(ITER_SOURCE, u64_to_user_ptr(address), bytes, &iov,
			  &msg.msg_iter);
	if (r)
		return r;
	return kevent_send_iter(op, sock, &msg);
}

static s64 kevent_send_vector(struct kevent_op *op, struct socket *sock)
{
	const struct kevent_vector __user *from = u64_to_user_ptr(op->address);
	struct iovec fast[8], *iov = fast;
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	const u32 count = op->bytes;
	size_t total = 0;
	s64 r = -EFAULT;
	u32 i;

	static_assert(sizeof(struct kevent_vector) == sizeof(struct iovec));
	if (count > ARRAY_SIZE(fast)) {
		iov = kmalloc_array(count, sizeof(*iov), GFP_KERNEL_ACCOUNT);
		if (!iov)
			return -ENOMEM;
	}
	if (copy_from_user(iov, from, count * sizeof(*iov)))
		goto out;
	for (i = 0; i < count; i++) {
		if (!access_ok(iov[i].iov_base, iov[i].iov_len))
			goto out;
		if (iov[i].iov_len > MAX_RW_COUNT - total) {
			r = -EINVAL;
			goto out;
		}
		total += iov[i].iov_len;
	}
	r = -EINVAL;
	if (op->offset > total)
		goto out;
	/* Once something is out its length is fixed. */
	if (op->total < 0)
		op->total = total - op->offset;
	r = -EFAULT;
	if (op->total != total - op->offset)
		goto out;
	if (op->events & KEVENT_SEND_MORE)
		msg.msg_flags |= MSG_MORE;
	iov_iter_init(&msg.msg_iter, ITER_SOURCE, iov, count, total);
	iov_iter_advance(&msg.msg_iter, op->offset + op->done);
	r = kevent_send_iter(op, sock, &msg);
out:
	if (iov != fast)
		kfree(iov);
	return r;
}

s64 kevent_try_send(struct kevent_op *op, struct socket *sock)
{
	s64 r;

	if (op->events & KEVENT_SEND_VECTOR)
		r = kevent_send_vector(op, sock);
	else
		r = kevent_send_bytes(op, sock, op->address + op->done,
				      op->bytes - op->done,
				      op->events & KEVENT_SEND_MORE);
	if (r == -EAGAIN || kevent_faulted(r))
		return r;
	return op->done || !r ? op->done : r;
}

s64 kevent_try_connect(struct kevent_op *op, struct socket *sock)
{
	struct sockaddr_storage address;
	int r;

	if (op->done) {
		u32 mask = (__force u32)READ_ONCE(sock->ops)->poll(sock->file,
								   sock, NULL);

		if (!(mask & op->wanted))
			return -EAGAIN;
		return sock_error(sock->sk);
	}
	memset(&address, 0, sizeof(address));
	if (copy_from_user(&address, u64_to_user_ptr(op->address), op->bytes))
		return -EFAULT;
	r = kernel_connect(sock, (struct sockaddr *)&address, op->bytes,
			   O_NONBLOCK);
	if (r == -EAGAIN)
		/* A full backlog (Unix), or no port; neither is announced. */
		return KEVENT_AGAIN;
	if (r != -EINPROGRESS)
		return r;
	op->done = 1;
	return -EAGAIN;
}
