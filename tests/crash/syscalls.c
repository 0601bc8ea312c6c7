/* Loaded into a server by LD_PRELOAD: counts its calls into the kernel that matter to files, and does something at
 * one of them. What to do stands in a block of memory shared with the test, see syscalls.py, which has the same
 * layout. Only calls on files below `root` count, and answers to clients.
 *
 * strace can do this too, but counts for each thread on its own, and which thread does what follows from chance.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum call { OPEN, WRITE, PWRITE, FDATASYNC, FSYNC, LINK, UNLINK, MKDIR, TRUNCATE, RENAME, COPY, ANSWER, CALLS };
enum action { NOTHING, KILL, CUT, FAIL, SHORT };

#define NOTES 8192
#define NAME 120

struct note {
    int32_t call;
    char name[NAME];
};

struct block {
    char root[256];
    char mount[256];
    int64_t offset;   /* seconds by which the wall clock is wrong */
    int64_t watching; /* whether anything is counted */
    int64_t action;
    int64_t mask; /* calls that count for `from` and `until`, a bit each */
    int64_t from;
    int64_t until;
    int64_t error;
    int64_t seen; /* calls of `mask` since it was set */
    int64_t hits; /* how often the action was taken */
    int64_t noted;
    struct note notes[NOTES];
};

static struct block *block;

__attribute__((constructor)) static void attach(void) {
    const char *file = getenv("SYSCALLS_BLOCK");
    if (file == NULL) return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return;
    void *memory = mmap(NULL, sizeof *block, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (memory != MAP_FAILED) block = memory;
}

/* The path of a descriptor, as the kernel tells it. */
static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
    path[length < 0 ? 0 : length] = '\0';
    return length > 0;
}

static int client(int fd) {
    int domain = 0;
    socklen_t size = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_INET;
}

/* Count a call on `path`; whether it is to be altered. Does not come back where the process is to die. */
static int met(enum call call, const char *path) {
    int64_t place = __atomic_fetch_add(&block->noted, 1, __ATOMIC_SEQ_CST);
    if (place < NOTES) {
        strncpy(block->notes[place].name, path, NAME - 1);
        block->notes[place].call = (int32_t)call;
    }
    if (!(block->mask & ((int64_t)1 << call))) return 0;
    int64_t number = __atomic_add_fetch(&block->seen, 1, __ATOMIC_SEQ_CST);
    if (block->action == NOTHING || number < block->from || number > block->until) return 0;
    __atomic_add_fetch(&block->hits, 1, __ATOMIC_SEQ_CST);
    if (block->action == CUT) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, block->mount, O_RDONLY | O_CLOEXEC, 0);
        uint32_t without_the_log = 2;
        ioctl(fd, 0x8004587d, &without_the_log); /* FS_IOC_SHUTDOWN */
    }
    if (block->action == KILL || block->action == CUT) {
        syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
        for (;;) pause();
    }
    return 1;
}

static int below(const char *path) {
    size_t length = strlen(block->root);
    return strncmp(path, block->root, length) == 0;
}

static const char *inner(const char *path) {
    return path + strlen(block->root);
}

static int watching(void) {
    return block != NULL && block->watching;
}

static int on_descriptor(enum call call, int fd) {
    char path[512];
    if (!watching()) return 0;
    int saved = errno;
    int altered = 0;
    if ((call == WRITE || call == ANSWER) && client(fd))
        altered = met(ANSWER, "");
    else if (call != ANSWER && path_of(fd, path, sizeof path) && below(path))
        altered = met(call, inner(path));
    errno = saved;
    return altered;
}

static int on_path(enum call call, int folder, const char *name) {
    char path[1024];
    if (!watching()) return 0;
    int saved = errno;
    int altered = 0;
    if (name[0] == '/') {
        if (below(name)) altered = met(call, inner(name));
    } else if (folder != AT_FDCWD && path_of(folder, path, 512)) {
        size_t length = strlen(path);
        snprintf(path + length, sizeof path - length, "/%s", name);
        if (below(path)) altered = met(call, inner(path));
    }
    errno = saved;
    return altered;
}

static int failing(void) {
    errno = (int)block->error;
    return -1;
}

static int is_short(void) {
    return block->action == SHORT;
}

/* ---- the calls */

static int open_file(int folder, const char *name, int flags, mode_t mode) {
    if (on_path(OPEN, folder, name)) return failing();
    return (int)syscall(SYS_openat, folder, name, flags, mode);
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *name, int flags, ...) {
    MODE(flags)
    return open_file(AT_FDCWD, name, flags, mode);
}
int open64(const char *name, int flags, ...) {
    MODE(flags)
    return open_file(AT_FDCWD, name, flags, mode);
}
int openat(int folder, const char *name, int flags, ...) {
    MODE(flags)
    return open_file(folder, name, flags, mode);
}
int openat64(int folder, const char *name, int flags, ...) {
    MODE(flags)
    return open_file(folder, name, flags, mode);
}

ssize_t write(int fd, const void *data, size_t size) {
    if (on_descriptor(WRITE, fd)) {
        if (!is_short()) return failing();
        size = (size + 1) / 2;
    }
    return syscall(SYS_write, fd, data, size);
}
ssize_t writev(int fd, const struct iovec *pieces, int count) {
    if (on_descriptor(ANSWER, fd)) return failing();
    return syscall(SYS_writev, fd, pieces, count);
}
ssize_t send(int fd, const void *data, size_t size, int flags) {
    if (on_descriptor(ANSWER, fd)) return failing();
    return syscall(SYS_sendto, fd, data, size, flags, NULL, 0);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (on_descriptor(ANSWER, fd)) return failing();
    return syscall(SYS_sendmsg, fd, message, flags);
}

static ssize_t write_at(int fd, const void *data, size_t size, off_t place) {
    if (on_descriptor(PWRITE, fd)) {
        if (!is_short()) return failing();
        size = (size + 1) / 2;
    }
    return syscall(SYS_pwrite64, fd, data, size, place);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t place) { return write_at(fd, data, size, place); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place) { return write_at(fd, data, size, place); }

int fdatasync(int fd) {
    if (on_descriptor(FDATASYNC, fd)) return failing();
    return (int)syscall(SYS_fdatasync, fd);
}
int fsync(int fd) {
    if (on_descriptor(FSYNC, fd)) return failing();
    return (int)syscall(SYS_fsync, fd);
}

int link(const char *old, const char *new) {
    if (on_path(LINK, AT_FDCWD, new)) return failing();
    return (int)syscall(SYS_link, old, new);
}
int linkat(int old_folder, const char *old, int folder, const char *new, int flags) {
    if (on_path(LINK, folder, new)) return failing();
    return (int)syscall(SYS_linkat, old_folder, old, folder, new, flags);
}
int unlink(const char *name) {
    if (on_path(UNLINK, AT_FDCWD, name)) return failing();
    return (int)syscall(SYS_unlink, name);
}
int unlinkat(int folder, const char *name, int flags) {
    if (on_path(UNLINK, folder, name)) return failing();
    return (int)syscall(SYS_unlinkat, folder, name, flags);
}
int rmdir(const char *name) {
    if (on_path(UNLINK, AT_FDCWD, name)) return failing();
    return (int)syscall(SYS_rmdir, name);
}
int mkdir(const char *name, mode_t mode) {
    if (on_path(MKDIR, AT_FDCWD, name)) return failing();
    return (int)syscall(SYS_mkdir, name, mode);
}
int mkdirat(int folder, const char *name, mode_t mode) {
    if (on_path(MKDIR, folder, name)) return failing();
    return (int)syscall(SYS_mkdirat, folder, name, mode);
}
static int truncate_to(int fd, off_t size) {
    if (on_descriptor(TRUNCATE, fd)) return failing();
    return (int)syscall(SYS_ftruncate, fd, size);
}
int ftruncate(int fd, off_t size) { return truncate_to(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncate_to(fd, size); }
int rename(const char *old, const char *new) {
    if (on_path(RENAME, AT_FDCWD, new)) return failing();
    return (int)syscall(SYS_rename, old, new);
}
int renameat(int old_folder, const char *old, int folder, const char *new) {
    if (on_path(RENAME, folder, new)) return failing();
    return (int)syscall(SYS_renameat, old_folder, old, folder, new);
}
ssize_t copy_file_range(int source, off64_t *from, int fd, off64_t *to, size_t size, unsigned flags) {
    if (on_descriptor(COPY, fd)) return failing();
    return syscall(SYS_copy_file_range, source, from, fd, to, size, flags);
}

/* ---- the wall clock */

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && block != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += block->offset;
    return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = (int)syscall(SYS_gettimeofday, now, zone);
    if (result == 0 && block != NULL) now->tv_sec += block->offset;
    return result;
}
time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place != NULL) *place = now.tv_sec;
    return now.tv_sec;
}
