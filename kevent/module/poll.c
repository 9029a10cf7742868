// SPDX-License-Identifier: GPL-2.0-only
/*
 * Files with ->poll, and sockets: a wait queue entry in each of the file's wait
 * queues.
 *
 * A file other than a socket is held open by its interest.
 *
 * Of a socket (IPv4, IPv6, Unix) only the inode is held. The last close(2) of it
 * releases it as ever: the peer sees the end of the connection, and a queue sent
 * through the very socket that it watches makes no circle of references. The
 * inode keeps struct socket, and so the wait queue, where it is. To learn of
 * the close its proto_ops are replaced by a copy with another ->release. They
 * stay so until the socket is released, for nobody can tell whether a release
 * has looked at them already; the copy's owner is this module, so the module
 * stays as long as there are such sockets. A socket that gets kTLS gets its own
 * operations back first.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/module.h>
#include <linux/rhashtable.h>
#include <linux/slab.h>
#include <linux/sockptr.h>
#include <linux/tcp.h>
#include <net/inet_connection_sock.h>
#include <net/sock.h>
#include <net/tcp_states.h>

#include "core.h"

#define KEVENT_FORCED	(KEVENT_ERR | KEVENT_HUP)

static_assert((__force u32)EPOLLIN == KEVENT_IN);
static_assert((__force u32)EPOLLPRI == KEVENT_PRI);
static_assert((__force u32)EPOLLOUT == KEVENT_OUT);
static_assert((__force u32)EPOLLERR == KEVENT_ERR);
static_assert((__force u32)EPOLLHUP == KEVENT_HUP);
static_assert((__force u32)EPOLLRDHUP == KEVENT_RDHUP);

/* ---- Wait queues ---- */

/* Context: process. */
void kevent_hook_add(struct kevent_hook *hook, struct kevent *k,
		     wait_queue_head_t *head, wait_queue_func_t function)
{
	hook->k = k;
	hook->head = head;
	init_waitqueue_func_entry(&hook->wait, function);
	add_wait_queue(head, &hook->wait);
}

/* When it returns the function does not run. Context: process. */
void kevent_hook_remove(struct kevent_hook *hook)
{
	wait_queue_head_t *head;

	/* A queue announced by POLLFREE is freed by RCU. */
	rcu_read_lock();
	/* Pairs with the callback's release, after it has left the queue. */
	head = smp_load_acquire(&hook->head);
	if (head)
		remove_wait_queue(head, &hook->wait);
	rcu_read_unlock();
}

/*
 * What is ready at a socket whose state has changed, as far as that can be told
 * without asking its ->poll. Context: the socket's lock held.
 */
static u32 kevent_sk_events(const struct sock *sk)
{
	const u8 shutdown = READ_ONCE(sk->sk_shutdown);
	const int state = READ_ONCE(sk->sk_state);
	u32 events = 0;

	if (shutdown == SHUTDOWN_MASK || state == TCP_CLOSE)
		events |= KEVENT_HUP;
	if (shutdown & RCV_SHUTDOWN)
		events |= KEVENT_IN | KEVENT_RDHUP;
	if (READ_ONCE(sk->sk_err))
		events |= KEVENT_ERR;
	if (state == TCP_ESTABLISHED && sk_stream_is_writeable(sk))
		events |= KEVENT_OUT;
	return events;
}

/*
 * The source has changed.
 * Context: any, hard interrupts included; the lock of the wait queue held.
 */
static int kevent_poll_woken(wait_queue_entry_t *wait, unsigned int mode,
			     int sync, void *key)
{
	struct kevent_hook *hook = container_of(wait, struct kevent_hook, wait);
	struct kevent *k = hook->k;
	const __poll_t mask = key_to_poll(key);
	u32 events = (__force u32)mask;

	if (unlikely(mask & POLLFREE)) {
		kevent_break(k, -EBADF);
		list_del_init(&wait->entry);
		/* Pairs with kevent_hook_remove(). */
		smp_store_release(&hook->head, NULL);
		return 1;
	}
	if (!mask) {
		/* TCP says so under its lock; ->poll may not be called here. */
		if (!k->poll.sk || k->poll.sk->sk_protocol != IPPROTO_TCP) {
			kevent_want_test(k);
			return 1;
		}
		events = kevent_sk_events(k->poll.sk);
	}
	events &= READ_ONCE(k->events);
	/* Sockets announce either kind of data as both. */
	if (unlikely(events & KEVENT_PRI && mask & EPOLLIN)) {
		kevent_want_test(k);
		return 1;
	}
	if (!events)
		return 0;
	kevent_deliver_events(k, events);
	return 1;
}

struct kevent_poll_table {
	poll_table table;
	struct kevent *k;
	int error;
};

/* Called by the file's ->poll for each wait queue. Context: process. */
static void kevent_poll_queue(struct file *file, wait_queue_head_t *head,
			      poll_table *table)
{
	struct kevent_poll_table *t =
		container_of(table, struct kevent_poll_table, table);
	struct kevent *k = t->k;
	struct kevent_hook *hook;

	if (!head)
		return;
	if (k->poll.hooks < ARRAY_SIZE(k->poll.hook)) {
		hook = &k->poll.hook[k->poll.hooks];
	} else {
		hook = kzalloc(sizeof(*hook), GFP_KERNEL_ACCOUNT);
		if (!hook) {
			t->error = -ENOMEM;
			return;
		}
		hook->next = k->poll.more;
		k->poll.more = hook;
	}
	k->poll.hooks++;
	kevent_hook_add(hook, k, head, kevent_poll_woken);
}

/* ---- Sockets ---- */

struct kevent_sock {
	struct rhash_head node;
	struct socket *sock;
	struct list_head interests;	/* kevent.poll.in_sock */
	struct rcu_head rcu;
};

/* A copy of a family's operations with our ->release. */
struct kevent_proto {
	struct proto_ops ops;
	const struct proto_ops *original;
};

static DEFINE_SPINLOCK(kevent_sock_lock);
static struct kevent_proto kevent_protos[8];
static unsigned int kevent_proto_count;	/* the slots before it never change */
static struct rhashtable kevent_socks;
static const struct rhashtable_params kevent_sock_params = {
	.key_len = sizeof(struct socket *),
	.key_offset = offsetof(struct kevent_sock, sock),
	.head_offset = offsetof(struct kevent_sock, node),
	.automatic_shrinking = true,
};

static const struct kevent_proto *kevent_proto_of(const struct proto_ops *ops)
{
	/* Pairs with kevent_replacement(). */
	unsigned int count = smp_load_acquire(&kevent_proto_count);
	unsigned int i;

	for (i = 0; i < count; i++)
		if (ops == &kevent_protos[i].ops)
			return &kevent_protos[i];
	return NULL;
}

/* Ours that a foreign table was copied from. It exists: nothing is taken back. */
static const struct kevent_proto *kevent_proto_like(const struct proto_ops *ops)
{
	/* Pairs with kevent_replacement(). */
	unsigned int count = smp_load_acquire(&kevent_proto_count);
	unsigned int i;

	for (i = 0; i < count - 1; i++)
		if (ops->family == kevent_protos[i].ops.family &&
		    ops->bind == kevent_protos[i].ops.bind &&
		    ops->connect == kevent_protos[i].ops.connect)
			break;
	return &kevent_protos[i];
}

/* Takes the storage of a socket that is no longer announced. May be NULL. */
static struct kevent_sock *kevent_sock_take(struct socket *sock)
{
	struct kevent_sock *storage;

	lockdep_assert_held(&kevent_sock_lock);
	storage = rhashtable_lookup_fast(&kevent_socks, &sock,
					 kevent_sock_params);
	if (storage)
		rhashtable_remove_fast(&kevent_socks, &storage->node,
				       kevent_sock_params);
	return storage;
}

/* Takes an interest off its storage; NULL: there is none left. */
static struct kevent *kevent_sock_next(struct kevent_sock *storage)
{
	struct kevent *k;

	lockdep_assert_held(&kevent_sock_lock);
	if (!storage || list_empty(&storage->interests))
		return NULL;
	k = list_first_entry(&storage->interests, struct kevent, poll.in_sock);
	list_del_init(&k->poll.in_sock);
	k->poll.storage = NULL;
	return k;
}

/* Puts the family's operations back. Context: process; the file is held. */
static void kevent_sock_give_up(struct socket *sock)
{
	const struct kevent_proto *proto;
	struct kevent_sock *storage;

	lock_sock(sock->sk);
	spin_lock_bh(&kevent_sock_lock);
	storage = kevent_sock_take(sock);
	while (kevent_sock_next(storage))
		;
	proto = kevent_proto_of(sock->ops);
	if (proto)
		WRITE_ONCE(sock->ops, proto->original);
	spin_unlock_bh(&kevent_sock_lock);
	release_sock(sock->sk);
	if (proto)
		module_put(THIS_MODULE);
	if (storage)
		kfree_rcu(storage, rcu);
}

/*
 * In place of the family's own: the last descriptor is gone.
 * Context: process, the inode's lock held.
 */
static int kevent_sock_release(struct socket *sock)
{
	const struct kevent_proto *proto = kevent_proto_of(sock->ops);
	struct kevent_sock *storage;
	struct kevent *k;

	spin_lock_bh(&kevent_sock_lock);
	storage = kevent_sock_take(sock);
	while ((k = kevent_sock_next(storage))) {
		kevent_break(k, -EBADF);
		/* There may be many. */
		spin_unlock_bh(&kevent_sock_lock);
		cond_resched();
		spin_lock_bh(&kevent_sock_lock);
	}
	spin_unlock_bh(&kevent_sock_lock);
	if (storage)
		kfree_rcu(storage, rcu);
	if (!proto) {
		/*
		 * Somebody got past kevent_sock_setsockopt() and made his table
		 * from ours, for all sockets that will use it: they come here,
		 * and put a reference of this module that they never took. The
		 * one of the socket that it was copied from is never put: the
		 * table needs us for ever.
		 */
		__module_get(THIS_MODULE);
		proto = kevent_proto_like(sock->ops);
	}
	return proto->original->release(sock);
}

/*
 * In place of the family's own. What replaces a socket's operations must find
 * the family's: kTLS makes a table from them for all its sockets, and that must
 * not be ours. So such a socket is ours no longer, and its interests do not learn
 * of the close any more before they are tested. Context: process.
 */
static int kevent_sock_setsockopt(struct socket *sock, int level, int option,
				  sockptr_t value, unsigned int length)
{
	const struct kevent_proto *proto = kevent_proto_of(sock->ops);
	int r;

	/* Another thread was here a moment ago, or a copy of ours is in use. */
	if (!proto)
		return kevent_proto_like(sock->ops)->original->setsockopt(
			sock, level, option, value, length);
	if (!(level == SOL_TCP && option == TCP_ULP) &&
	    !(level == SOL_IPV6 && option == IPV6_ADDRFORM))
		return proto->original->setsockopt(sock, level, option, value,
						   length);
	/* We are to be here until the end of this call. */
	__module_get(THIS_MODULE);
	kevent_sock_give_up(sock);
	r = proto->original->setsockopt(sock, level, option, value, length);
	module_put(THIS_MODULE);
	return r;
}

/* The copy of these operations; NULL if there can be none. */
static const struct proto_ops *kevent_replacement(const struct proto_ops *ops)
{
	unsigned int i, count = kevent_proto_count;
	struct kevent_proto *proto;

	lockdep_assert_held(&kevent_sock_lock);
	for (i = 0; i < count; i++)
		if (kevent_protos[i].original == ops)
			return &kevent_protos[i].ops;
	/* A family in a module would have to be held, by accepted sockets too. */
	if (ops->owner || count == ARRAY_SIZE(kevent_protos))
		return NULL;
	proto = &kevent_protos[count];
	proto->ops = *ops;
	proto->ops.owner = THIS_MODULE;
	proto->ops.release = kevent_sock_release;
	if (ops->setsockopt)
		proto->ops.setsockopt = kevent_sock_setsockopt;
	proto->original = ops;
	/* Pairs with kevent_proto_of(). */
	smp_store_release(&kevent_proto_count, count + 1);
	return &proto->ops;
}

static bool kevent_announces_release(const struct socket *sock)
{
	const struct sock *sk = sock->sk;

	if (READ_ONCE(sk->sk_state) == TCP_LISTEN)
		return false;
	return sk->sk_family == AF_UNIX || sk->sk_protocol == IPPROTO_TCP ||
	       sk->sk_protocol == IPPROTO_UDP;
}

/* Context: process; the caller holds the socket's file. */
static int kevent_sock_join(struct kevent *k, struct socket *sock)
{
	const struct proto_ops *ops, *ours;
	struct kevent_sock *storage, *fresh;
	int r = 0;

	if (!kevent_announces_release(sock))
		return 0;
	fresh = kzalloc(sizeof(*fresh), GFP_KERNEL_ACCOUNT);
	if (!fresh)
		return -ENOMEM;
	fresh->sock = sock;
	INIT_LIST_HEAD(&fresh->interests);

	/* Under this lock kTLS and IPV6_ADDRFORM replace the operations. */
	lock_sock(sock->sk);
	spin_lock_bh(&kevent_sock_lock);
	ops = READ_ONCE(sock->ops);
	if (!kevent_proto_of(ops)) {
		if (sock->sk->sk_protocol == IPPROTO_TCP &&
		    inet_csk_has_ulp(sock->sk))
			goto out;
		ours = kevent_replacement(ops);
		if (!ours)
			goto out;
		__module_get(THIS_MODULE);
		WRITE_ONCE(sock->ops, ours);
	}
	storage = rhashtable_lookup_fast(&kevent_socks, &sock,
					 kevent_sock_params);
	if (!storage) {
		r = rhashtable_insert_fast(&kevent_socks, &fresh->node,
					   kevent_sock_params);
		if (r)
			goto out;
		storage = fresh;
		fresh = NULL;
	}
	list_add_tail(&k->poll.in_sock, &storage->interests);
	k->poll.storage = storage;
out:
	spin_unlock_bh(&kevent_sock_lock);
	release_sock(sock->sk);
	kfree(fresh);
	return r;
}

/* Context: process; the inode is held, the socket may be released meanwhile. */
static void kevent_sock_leave(struct kevent *k)
{
	const struct proto_ops *ops = NULL;
	struct kevent_sock *storage;

	spin_lock_bh(&kevent_sock_lock);
	storage = k->poll.storage;
	if (storage) {
		list_del_init(&k->poll.in_sock);
		k->poll.storage = NULL;
		/* If it is not there, the socket is being released. */
		if (!list_empty(&storage->interests) ||
		    rhashtable_remove_fast(&kevent_socks, &storage->node,
					   kevent_sock_params))
			storage = NULL;
	}
	/*
	 * Under the lock: a release by way of ours takes the storage first, and
	 * clears the operations and puts our reference afterwards.
	 */
	if (storage)
		ops = READ_ONCE(storage->sock->ops);
	spin_unlock_bh(&kevent_sock_lock);
	if (!storage)
		return;
	/* Replaced by somebody else: nobody but us can put our reference. */
	if (!ops || ops->owner != THIS_MODULE)
		module_put(THIS_MODULE);
	kfree_rcu(storage, rcu);
}

/* ---- The source ---- */

static u32 kevent_poll_test(struct kevent *k)
{
	struct socket *sock;
	__poll_t mask = 0;
	bool gone;

	if (k->poll.file)
		return (__force u32)vfs_poll(k->poll.file, NULL) & k->events;
	/*
	 * The lock keeps the socket from being released in the middle. It may
	 * be taken for long, by a close that lingers.
	 */
	if (!inode_trylock_shared(k->poll.inode)) {
		kevent_test_later(k);
		return 0;
	}
	sock = SOCKET_I(k->poll.inode);
	gone = !sock->sk;
	if (!gone)
		mask = READ_ONCE(sock->ops)->poll(sock->file, sock, NULL);
	inode_unlock_shared(k->poll.inode);
	if (gone)
		kevent_break(k, -EBADF);
	return (__force u32)mask & k->events;
}

/* For files whose operations have no symbol for us. */
static bool kevent_is_anon(const struct file *file, const char *name)
{
	const struct dentry *dentry = file->f_path.dentry;

	return dentry->d_sb->s_magic == ANON_INODE_FS_MAGIC &&
	       !strcmp((const char *)dentry->d_name.name, name);
}

/* A file that might hold, or wake, this queue in turn. */
static bool kevent_is_circle(const struct file *file)
{
	return file->f_op == &kevent_file_operations ||
	       kevent_is_anon(file, "[eventpoll]") ||
	       kevent_is_anon(file, "[io_uring]");
}

static int kevent_poll_add_file(struct kevent *k, struct file *file)
{
	struct kevent_poll_table t = { .k = k };
	struct socket *sock = sock_from_file(file);
	__poll_t mask;

	if (!file_can_poll(file))
		return -EPERM;
	if (kevent_is_circle(file))
		return -EINVAL;
	/* The socket of an SMC file that fell back to TCP has another inode. */
	if (sock && SOCK_INODE(sock) == file_inode(file) &&
	    (sock->sk->sk_family == AF_INET ||
		     sock->sk->sk_family == AF_INET6 ||
		     sock->sk->sk_family == AF_UNIX)) {
		int r;

		k->poll.inode = SOCK_INODE(sock);
		ihold(k->poll.inode);
		k->poll.sk = sock->sk;
		sock_hold(sock->sk);
		r = kevent_sock_join(k, sock);
		if (r)
			return r;
	} else {
		k->poll.file = get_file(file);
		/* Its ->poll tells of the signals of whoever calls it. */
		if (kevent_is_anon(file, "[signalfd]"))
			k->state |= KEVENT_OWNERS;
	}
	init_poll_funcptr(&t.table, kevent_poll_queue);
	t.table._key = (__force __poll_t)k->events;
	mask = vfs_poll(file, &t.table);
	if (t.error)
		return t.error;
	return (__force u32)mask & k->events;
}

static int kevent_poll_add(struct kevent *k, const struct kevent_sqe *s)
{
	struct file *file;
	int r;

	INIT_LIST_HEAD(&k->poll.in_sock);
	file = fget(s->fd);
	if (!file)
		return -EBADF;
	if (k->source == KEVENT_SOURCE_SOCKET && !sock_from_file(file))
		r = -ENOTSOCK;
	else
		r = kevent_poll_add_file(k, file);
	fput(file);
	return r;
}

static void kevent_poll_remove(struct kevent *k)
{
	unsigned int i;

	if (k->poll.inode)
		kevent_sock_leave(k);
	for (i = 0; i < ARRAY_SIZE(k->poll.hook) && i < k->poll.hooks; i++)
		kevent_hook_remove(&k->poll.hook[i]);
	while (k->poll.more) {
		struct kevent_hook *hook = k->poll.more;

		k->poll.more = hook->next;
		kevent_hook_remove(hook);
		kfree(hook);
	}
	if (k->poll.sk)
		sock_put(k->poll.sk);
	if (k->poll.inode)
		iput(k->poll.inode);
	if (k->poll.file)
		fput(k->poll.file);
}

const struct kevent_source_ops kevent_poll_ops = {
	.add = kevent_poll_add,
	.test = kevent_poll_test,
	.remove = kevent_poll_remove,
	.events = KEVENT_POLL_EVENTS,
	.forced = KEVENT_FORCED,
};

const struct kevent_source_ops kevent_socket_ops = {
	.add = kevent_poll_add,
	.test = kevent_poll_test,
	.remove = kevent_poll_remove,
	.events = KEVENT_POLL_EVENTS,
	.forced = KEVENT_FORCED,
};

int kevent_sock_init(void)
{
	return rhashtable_init(&kevent_socks, &kevent_sock_params);
}

void kevent_sock_exit(void)
{
	rhashtable_destroy(&kevent_socks);
}
