// SPDX-License-Identifier: GPL-2.0-only
/* Operations out of the submission ring: what is right, what they name, chains. */
#include <linux/cred.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/net.h>
#include <linux/slab.h>
#include <net/sock.h>

#include "core.h"
#include "op.h"

/* Which flags and arguments an operation has. */
bool kevent_op_valid(const struct kevent_sqe *s)
{
	u16 flags = KEVENT_SKIP_SUCCESS;
	unsigned int arguments;
	u32 events = 0;
	unsigned int i;

	switch (s->opcode) {
	case KEVENT_OP_ACCEPT:
		flags = KEVENT_MULTISHOT;
		events = KEVENT_ACCEPT_RECV;
		arguments = s->events & KEVENT_ACCEPT_RECV ? 2 : 1;
		if (s->arg[0] & ~(u64)(SOCK_CLOEXEC | SOCK_NONBLOCK))
			return false;
		break;
	case KEVENT_OP_CONNECT:
		arguments = 2;
		if (!s->arg[1] || s->arg[1] > sizeof(struct sockaddr_storage))
			return false;
		break;
	case KEVENT_OP_RECV:
		events = KEVENT_RECV_POOL | KEVENT_RECV_WAIT;
		arguments = 2;
		if (s->events & KEVENT_RECV_POOL) {
			flags = KEVENT_MULTISHOT;
			arguments = 1;
		}
		break;
	case KEVENT_OP_SEND:
		events = KEVENT_SEND_MORE | KEVENT_SEND_VECTOR |
			 KEVENT_SEND_REFERENCE;
		arguments = 2;
		if (s->events & KEVENT_SEND_VECTOR) {
			arguments = 3;
			if (s->arg[1] > KEVENT_MAX_VECTOR ||
			    s->arg[2] > MAX_RW_COUNT)
				return false;
		}
		break;
	case KEVENT_OP_SENDFILE:
	case KEVENT_OP_SENDFILE_PATH:
		arguments = 4;
		break;
	case KEVENT_OP_SHUTDOWN:
		arguments = 1;
		if (s->arg[0] > SHUT_RDWR)
			return false;
		break;
	case KEVENT_OP_CLOSE:
		arguments = 0;
		break;
	case KEVENT_OP_CANCEL:
		events = KEVENT_CANCEL_ANY;
		arguments = 1;
		if (s->events & KEVENT_CANCEL_ANY && s->arg[0])
			return false;
		break;
	default:
		return false;
	}
	for (i = arguments; i < ARRAY_SIZE(s->arg); i++)
		if (s->arg[i])
			return false;
	if (s->opcode != KEVENT_OP_CANCEL && !(s->flags & KEVENT_MULTISHOT))
		flags |= KEVENT_LINK;
	return !s->source && !s->result && !(s->flags & ~flags) &&
	       !(s->events & ~events);
}

/* Takes hold of the socket. Context: process. */
static int kevent_op_set_socket(struct kevent_op *op, int fd)
{
	struct file *file = fget(fd);
	struct socket *sock;

	if (!file)
		return -EBADF;
	sock = sock_from_file(file);
	if (!sock || !sock->sk) {
		fput(file);
		return -ENOTSOCK;
	}
	op->inode = file_inode(file);
	if (sock->sk->sk_family == AF_UNIX && SOCK_INODE(sock) == op->inode) {
		ihold(op->inode);
		fput(file);
	} else {
		op->file = file;
	}
	return 0;
}

static int kevent_op_set_pool(struct kevent_op *op, u64 id)
{
	struct kevent_user *u = op->user;

	if (id >= KEVENT_MAX_POOLS || !u->pools[id])
		return -ENOENT;
	op->pool = u->pools[id];
	op->pool->users++;
	return 0;
}

/* May data be copied as it arrives? */
static void kevent_op_set_sk(struct kevent_op *op)
{
	struct sock *sk = op->file ? sock_from_file(op->file)->sk : NULL;

	if (sk && kevent_is_plain_tcp(sk))
		op->sk = sk;
}

static int kevent_op_set(struct kevent_op *op, const struct kevent_sqe *s)
{
	int r;

	op->address = s->arg[0];
	op->bytes = s->arg[1];
	op->wanted = kevent_op_sends(op) ?
			     KEVENT_OUT | KEVENT_ERR | KEVENT_HUP :
			     KEVENT_IN | KEVENT_RDHUP | KEVENT_ERR | KEVENT_HUP;
	switch (s->opcode) {
	case KEVENT_OP_ACCEPT:
		if (!kevent_may_accept(op))
			return -EOPNOTSUPP;
		if (s->events & KEVENT_ACCEPT_RECV)
			return kevent_op_set_pool(op, s->arg[1]);
		break;
	case KEVENT_OP_RECV:
		if (s->events & KEVENT_RECV_POOL) {
			r = kevent_op_set_pool(op, s->arg[0]);
			if (!r && op->pool->pin)
				kevent_op_set_sk(op);
			return r;
		}
		op->total = op->bytes;
		break;
	case KEVENT_OP_SEND:
		if (s->events & KEVENT_SEND_VECTOR) {
			op->offset = s->arg[2];
			break; /* the total is known when they have been read */
		}
		if (op->bytes > MAX_RW_COUNT)
			return -EINVAL;
		op->total = op->bytes;
		break;
	case KEVENT_OP_SENDFILE:
	case KEVENT_OP_SENDFILE_PATH:
		return kevent_sendfile_set(op, s);
	}
	return 0;
}

/* NULL if there are too many, or no memory. Context: process, u->mutex held. */
struct kevent_op *kevent_op_alloc(struct kevent_user *u)
{
	struct kevent_op *op;

	if (u->ops + READ_ONCE(u->done_count) >= KEVENT_MAX_OPERATIONS ||
	    !kevent_account_charge(u->account))
		return NULL;
	if (u->spares) {
		op = list_first_entry(&u->spare, struct kevent_op, run);
		list_del(&op->run);
		u->spares--;
		memset(op, 0, sizeof(*op));
	} else {
		op = kmem_cache_zalloc(kevent_op_cache, GFP_KERNEL_ACCOUNT);
		if (!op) {
			kevent_account_uncharge(u->account);
			return NULL;
		}
	}
	WRITE_ONCE(u->ops, u->ops + 1);
	INIT_LIST_HEAD(&op->lane);
	INIT_LIST_HEAD(&op->run);
	op->user = u;
	op->state = KEVENT_OP_RUNNING;
	return op;
}

/*
 * Takes an operation's arguments, and hold of what it names. What is wrong with it
 * is left in op->error. Context: process of the opener, u->mutex held.
 */
static void kevent_op_prepare(struct kevent_op *op, const struct kevent_sqe *s)
{
	op->opcode = s->opcode;
	op->events = s->events;
	op->user_data = s->user_data;
	op->handle = s->handle;
	op->total = -1;
	op->files = current->files;
	op->cred = get_current_cred();

	if (!kevent_op_valid(s)) {
		op->error = -EINVAL;
		return;
	}
	op->flags = s->flags;
	if (s->opcode == KEVENT_OP_CLOSE) {
		op->address = s->fd;
		return;
	}
	op->error = kevent_op_set_socket(op, s->fd);
	if (!op->error)
		op->error = kevent_op_set(op, s);
}

/*
 * Begins with an operation, or adds it to the chain, which begins when it is
 * complete; whatever is wrong with it is told by its entry.
 * Context: process of the opener, u->mutex held, which it may drop for a while.
 */
void kevent_op_submit(struct kevent_op *op, const struct kevent_sqe *s,
		      struct kevent_chain *chain)
{
	const bool linked = s->flags & KEVENT_LINK;
	struct kevent_op *before = chain->last;
	bool queued;

	kevent_op_prepare(op, s);
	queued = op->inode && !op->error &&
		 kevent_lane_first(op->user, op->inode, kevent_op_sends(op));
	if (!queued && !before && !linked) {
		kevent_op_run(op);
		return;
	}
	/* Its place among those of its socket it has from now on. */
	list_add_tail(&op->lane, kevent_op_lane(op));
	if (queued)
		op->state = KEVENT_OP_QUEUED;
	if (before) {
		op->state = KEVENT_OP_BLOCKED;
		op->before = before;
		before->link = op;
	} else if (linked) {
		chain->first = op;
	}
	chain->last = linked ? op : NULL;
	if (!linked)
		kevent_chain_begin(chain);
}

/* All of the chain's operations are there. Context: the same. */
void kevent_chain_begin(struct kevent_chain *chain)
{
	struct kevent_op *op = chain->first;

	chain->first = NULL;
	chain->last = NULL;
	if (op && op->state == KEVENT_OP_RUNNING)
		kevent_op_run(op);
}

/*
 * An element of the submission ring has failed, and made no operation: if others
 * were to follow it they do not begin either. Context: the same.
 */
void kevent_chain_cut(struct kevent_chain *chain, const struct kevent_sqe *s)
{
	chain->cut = s->flags & KEVENT_LINK &&
		     (kevent_is_operation(s->opcode) || chain->last ||
		      chain->cut);
	kevent_chain_begin(chain);
}
