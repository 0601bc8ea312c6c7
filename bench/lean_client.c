/*
 * A lean HTTP/1.1 load client: one thread, one epoll, keep-alive connections, one request at a time on each.
 *
 *   lean_client run --mode put|get --host H --port P --connections N --requests M --size B --targets FILE
 *                   [--seed S] [--interval-us U] [--host-header NAME] [--stall-timeout SECONDS]
 *   lean_client touch BYTES
 *   lean_client pattern
 *
 * It must cost far less than any server it measures, so that the server is what limits the rate:
 *   - every request head is built before the clock starts;
 *   - bodies are sent from one 256 KiB buffer that stays in the cache; only the first 32 bytes of each body
 *     differ (seed and request number), so that no two uploads have the same content and a server that
 *     deduplicates has to store each of them;
 *   - bodies of downloads are thrown away inside the kernel (MSG_TRUNC), only their length is checked.
 * Body byte o (o >= 32) is pattern[o % 262144]; `pattern` prints the buffer, for checks of stored files.
 *
 * Targets: one request target a line ("/upload/d/f?v=..."), taken in order; GET starts again at the first.
 * --requests 0 runs until SIGTERM; SIGUSR1 throws away what was counted so far.
 * --interval-us sends on a fixed schedule (one connection) and counts latency from the scheduled time, so that a
 * stall is charged to every request that should have been sent during it.
 *
 * Prints one JSON object. Exit 0 when it ran (failures are counted in the object), 1 when it could not run.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { HOT = 256 * 1024, STAMP = 32, RBUF = 16 * 1024, SINK = 4 * 1024 * 1024, MAX_FAILURES = 64 };
enum { SEND_QUANTUM = 1024 * 1024 };

static unsigned char hot[HOT];
static unsigned char sink[SINK]; /* never touched: MSG_TRUNC copies nothing */

enum state { IDLE, BUSY, READ_BODY, READ_CHUNKED };

struct conn {
    int fd;
    uint32_t events; /* what epoll was told */
    enum state state;
    int failed;       /* the answer is being read, but the request already counts as failed */
    int close_after;
    uint64_t index;   /* number of the request in flight */
    uint64_t sent, total;
    uint64_t start_ns;
    uint64_t body_left;
    int status;
    size_t rlen;
    char stamp[STAMP + 1];
    char rbuf[RBUF + 1];
};

static struct {
    int put;
    const char *host, *port, *host_header, *targets;
    uint64_t connections, requests, size, seed, interval_ns, stall_ns;
} opt = {.host = "127.0.0.1", .connections = 1, .stall_ns = 60ull * 1000000000ull};

static struct iovec *heads;
static uint64_t n_heads;
static struct addrinfo *address;
static int epoll_fd, timer_fd = -1;
static struct conn *conns;

static uint64_t next_index, finished, ok, failed, reconnects, body_bytes;
static uint64_t statuses[600];
static char first_failure[256];
static uint32_t *latencies; /* microseconds x 16: 62.5 ns steps, up to 268 s */
static uint64_t n_latencies, cap_latencies;
static uint64_t due_ns, progress_ns;
static int gave_up;

static volatile sig_atomic_t stop_asked, reset_asked;
static void on_stop(int sig) { (void)sig; stop_asked = 1; }
static void on_reset(int sig) { (void)sig; reset_asked = 1; }

static void die(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    fputs("lean_client: ", stderr);
    vfprintf(stderr, format, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void fill_pattern(void)
{
    uint64_t x = 0x9e3779b97f4a7c15ull; /* xorshift64: cheap, and does not compress */
    for (size_t i = 0; i < HOT; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(hot + i, &x, 8);
    }
}

/* ---- set-up ---------------------------------------------------------------------------------------------- */

static void read_targets(void)
{
    FILE *file = fopen(opt.targets, "r");
    if (!file)
        die("%s: %s", opt.targets, strerror(errno));
    char *line = NULL;
    size_t cap = 0, room = 0;
    ssize_t length;
    while ((length = getline(&line, &cap, file)) > 0) {
        while (length && (line[length - 1] == '\n' || line[length - 1] == '\r'))
            line[--length] = 0;
        if (!length)
            continue;
        if (n_heads == room) {
            room = room ? room * 2 : 1024;
            heads = realloc(heads, room * sizeof *heads);
            if (!heads)
                die("out of memory");
        }
        char *head;
        int n;
        if (opt.put)
            n = asprintf(&head,
                         "PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\n"
                         "Content-Length: %" PRIu64 "\r\n\r\n",
                         line, opt.host_header, opt.size);
        else
            n = asprintf(&head, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", line, opt.host_header);
        if (n < 0)
            die("out of memory");
        heads[n_heads].iov_base = head;
        heads[n_heads++].iov_len = (size_t)n;
    }
    free(line);
    fclose(file);
    if (!n_heads)
        die("%s: no targets", opt.targets);
    if (opt.put && opt.requests > n_heads)
        die("%s: %" PRIu64 " targets for %" PRIu64 " uploads", opt.targets, n_heads, opt.requests);
}

static void watch(struct conn *c, uint32_t events)
{
    if (c->events == events)
        return;
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &e) < 0)
        die("epoll_ctl: %s", strerror(errno));
    c->events = events;
}

static void open_connection(struct conn *c)
{
    c->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket: %s", strerror(errno));
    if (connect(c->fd, address->ai_addr, address->ai_addrlen) < 0)
        die("connect %s:%s: %s", opt.host, opt.port, strerror(errno));
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->events = 0;
    c->state = IDLE;
    c->rlen = 0;
    watch(c, EPOLLIN);
}

/* ---- requests -------------------------------------------------------------------------------------------- */

static void note_failure(uint64_t index, const char *what, int status)
{
    if (!first_failure[0]) {
        const struct iovec *head = &heads[index % n_heads];
        const char *end = memchr(head->iov_base, '\r', head->iov_len);
        int length = (int)(end ? end - (char *)head->iov_base : 0);
        snprintf(first_failure, sizeof first_failure, "%s (status %d) for %.*s", what, status,
                 length > 160 ? 160 : length, (char *)head->iov_base);
        for (char *p = first_failure; *p; p++)
            if (*p == '"' || *p == '\\' || (unsigned char)*p < 32)
                *p = '\'';
    }
}

static void record_latency(uint64_t ns)
{
    if (n_latencies == cap_latencies) {
        cap_latencies = cap_latencies ? cap_latencies * 2 : 65536;
        latencies = realloc(latencies, cap_latencies * sizeof *latencies);
        if (!latencies)
            die("out of memory");
    }
    uint64_t v = ns * 16 / 1000;
    latencies[n_latencies++] = v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

static void push(struct conn *c);

static void start_request(struct conn *c)
{
    if ((opt.requests && next_index >= opt.requests) || stop_asked) {
        c->state = IDLE;
        return;
    }
    if (opt.interval_ns) {
        uint64_t now = now_ns();
        if (now < due_ns) {
            struct itimerspec at = {.it_value = {(time_t)(due_ns / 1000000000ull), (long)(due_ns % 1000000000ull)}};
            timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
            c->state = IDLE;
            return;
        }
    }
    c->index = next_index++;
    c->sent = 0;
    c->total = heads[c->index % n_heads].iov_len + (opt.put ? opt.size : 0);
    c->state = BUSY;
    c->failed = c->close_after = c->status = 0;
    c->rlen = 0;
    if (opt.put)
        snprintf(c->stamp, sizeof c->stamp, "%016" PRIx64 "%016" PRIx64, opt.seed, c->index);
    if (opt.interval_ns) {
        c->start_ns = due_ns;
        due_ns += opt.interval_ns;
    } else {
        c->start_ns = now_ns();
    }
    push(c);
}

static void replace_connection(struct conn *c)
{
    close(c->fd);
    reconnects++;
    open_connection(c);
}

static void lost(struct conn *c, const char *what)
{
    failed++;
    finished++;
    note_failure(c->index, what, c->status);
    replace_connection(c);
    if (failed < MAX_FAILURES)
        start_request(c);
}

static void done(struct conn *c)
{
    uint64_t now = now_ns();
    finished++;
    if (c->failed) {
        failed++;
    } else {
        ok++;
        body_bytes += opt.size;
        record_latency(now - c->start_ns);
    }
    progress_ns = now;
    if (c->close_after || c->sent < c->total)
        replace_connection(c);
    else
        c->rlen = 0;
    if (failed < MAX_FAILURES)
        start_request(c);
}

/* Sends head, stamp and body as far as the socket takes them, at most SEND_QUANTUM bytes at a time. */
static void push(struct conn *c)
{
    const struct iovec *head = &heads[c->index % n_heads];
    uint64_t budget = SEND_QUANTUM;
    while (c->sent < c->total && budget) {
        struct iovec iov[8];
        int n = 0;
        uint64_t at = c->sent, planned = 0;
        if (at < head->iov_len) {
            iov[n].iov_base = (char *)head->iov_base + at;
            iov[n].iov_len = head->iov_len - at;
            planned += iov[n++].iov_len;
            at = head->iov_len;
        }
        uint64_t offset = at - head->iov_len, size = c->total - head->iov_len;
        if (offset < STAMP && offset < size) {
            iov[n].iov_base = c->stamp + offset;
            iov[n].iov_len = (size < STAMP ? size : STAMP) - offset;
            planned += iov[n].iov_len;
            offset += iov[n++].iov_len;
        }
        while (offset < size && n < 8 && planned < HOT) {
            uint64_t from = offset % HOT, length = HOT - from;
            if (length > size - offset)
                length = size - offset;
            iov[n].iov_base = hot + from;
            iov[n].iov_len = length;
            planned += length;
            offset += length;
            n++;
        }
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)n};
        ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EAGAIN)
                break;
            if (errno == EINTR)
                continue;
            if (errno == EPIPE || errno == ECONNRESET) {
                /* An early answer may still be waiting to be read; the reader decides. */
                watch(c, EPOLLIN);
                return;
            }
            die("send: %s", strerror(errno));
        }
        c->sent += (uint64_t)sent;
        budget = (uint64_t)sent > budget ? 0 : budget - (uint64_t)sent;
        if ((uint64_t)sent < planned)
            break;
    }
    watch(c, c->sent < c->total ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* ---- answers --------------------------------------------------------------------------------------------- */

static int chunked_end(const struct conn *c)
{
    return (c->rlen >= 7 && !memcmp(c->rbuf + c->rlen - 7, "\r\n0\r\n\r\n", 7)) ||
           (c->rlen == 5 && !memcmp(c->rbuf, "0\r\n\r\n", 5));
}

/* A whole head is in rbuf; `end` is its length. Sets up the body; returns 0 for an interim answer, which is dropped. */
static int parse_head(struct conn *c, size_t end)
{
    int64_t length = -1;
    int chunked = 0, close_after = 0;
    c->rbuf[end - 1] = 0;
    if (end < 16 || memcmp(c->rbuf, "HTTP/1.", 7))
        die("not an HTTP answer: %.40s", c->rbuf);
    c->status = atoi(c->rbuf + 9);
    close_after = c->rbuf[7] == '0';
    char *line = strchr(c->rbuf, '\n');
    while (line && *++line) {
        if (!strncasecmp(line, "content-length:", 15))
            length = strtoll(line + 15, NULL, 10);
        else if (!strncasecmp(line, "transfer-encoding:", 18))
            chunked = 1;
        else if (!strncasecmp(line, "connection:", 11)) {
            char *value = line + 11;
            while (*value == ' ')
                value++;
            close_after = !strncasecmp(value, "close", 5);
        }
        line = strchr(line, '\n');
    }
    memmove(c->rbuf, c->rbuf + end, c->rlen - end);
    c->rlen -= end;
    if (c->status >= 100 && c->status < 200)
        return 0;
    if (c->status >= 0 && c->status < 600)
        statuses[c->status]++;
    if (c->status == 204 || c->status == 304) {
        length = 0;
        chunked = 0;
    }
    if (length < 0 && !chunked)
        close_after = 1; /* the body ends with the connection: nothing measured here answers so */
    c->close_after = close_after;
    int good = opt.put ? c->status == 200 || c->status == 201 || c->status == 204 : c->status == 200;
    if (!good) {
        c->failed = 1;
        note_failure(c->index, "refused", c->status);
    } else if (opt.put && c->sent < c->total) {
        c->failed = 1;
        note_failure(c->index, "accepted before the whole body was sent", c->status);
    } else if (!opt.put && (chunked || length != (int64_t)opt.size)) {
        c->failed = 1;
        note_failure(c->index, "wrong body length", c->status);
    }
    if (chunked) {
        c->state = READ_CHUNKED;
    } else {
        c->state = READ_BODY;
        c->body_left = length > 0 ? (uint64_t)length : 0;
    }
    return 1;
}

static void pull(struct conn *c)
{
    for (;;) {
        if (c->state == READ_BODY) {
            if (c->rlen) {
                if (c->rlen > c->body_left) {
                    c->failed = c->close_after = 1;
                    note_failure(c->index, "more bytes than announced", c->status);
                    c->rlen = c->body_left;
                }
                c->body_left -= c->rlen;
                c->rlen = 0;
            }
            if (!c->body_left) {
                done(c);
                return;
            }
            ssize_t n = recv(c->fd, sink, c->body_left < SINK ? c->body_left : SINK, MSG_TRUNC | MSG_DONTWAIT);
            if (n > 0) {
                c->body_left -= (uint64_t)n;
                progress_ns = 0;
                if (c->body_left)
                    return; /* level-triggered: other connections first */
                continue;
            }
            if (n < 0 && errno == EAGAIN)
                return;
            if (n < 0 && errno == EINTR)
                continue;
            lost(c, "connection ended inside a body");
            return;
        }
        if (c->state == READ_CHUNKED) {
            if (chunked_end(c)) {
                done(c);
                return;
            }
            if (c->rlen == RBUF) { /* only the end matters */
                memmove(c->rbuf, c->rbuf + RBUF - 8, 8);
                c->rlen = 8;
            }
        }
        if (c->state == BUSY && c->rlen == RBUF)
            die("answer head longer than %d bytes", RBUF);
        ssize_t n = recv(c->fd, c->rbuf + c->rlen, RBUF - c->rlen, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (c->state == IDLE)
                replace_connection(c); /* the server ended an idle connection */
            else
                lost(c, "connection ended before the answer");
            return;
        }
        if (c->state == IDLE)
            die("bytes from the server with no request in flight");
        c->rlen += (size_t)n;
        while (c->state == BUSY) {
            char *end = memmem(c->rbuf, c->rlen, "\r\n\r\n", 4);
            if (!end)
                break;
            if (!parse_head(c, (size_t)(end - c->rbuf) + 4) && !c->rlen)
                break;
        }
        if (c->state == BUSY)
            return;
    }
}

/* ---- the run --------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile_us(double p)
{
    if (!n_latencies)
        return 0;
    uint64_t rank = (uint64_t)(p * (double)n_latencies + 0.999999);
    if (rank < 1)
        rank = 1;
    if (rank > n_latencies)
        rank = n_latencies;
    return (double)latencies[rank - 1] / 16.0;
}

static void run(void)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int error = getaddrinfo(opt.host, opt.port, &hints, &address);
    if (error)
        die("%s:%s: %s", opt.host, opt.port, gai_strerror(error));
    fill_pattern();
    read_targets();
    struct sigaction stop = {.sa_handler = on_stop}, reset = {.sa_handler = on_reset};
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGUSR1, &reset, NULL);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    conns = calloc(opt.connections, sizeof *conns);
    if (!conns)
        die("out of memory");
    for (uint64_t i = 0; i < opt.connections; i++)
        open_connection(&conns[i]);
    if (opt.interval_ns) {
        timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &e);
    }
    double cpu = cpu_seconds();
    uint64_t began = now_ns();
    progress_ns = due_ns = began;
    int announced = opt.requests != 0; /* an open-ended run says when its first answer arrived */
    for (uint64_t i = 0; i < opt.connections; i++)
        start_request(&conns[i]);
    struct epoll_event events[256];
    while (!stop_asked && (!opt.requests || finished < opt.requests)) {
        if (failed >= MAX_FAILURES) {
            gave_up = 1;
            break;
        }
        int n = epoll_wait(epoll_fd, events, 256, 1000);
        if (n < 0 && errno != EINTR)
            die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c) {
                uint64_t ticks;
                if (read(timer_fd, &ticks, sizeof ticks) > 0 && conns[0].state == IDLE)
                    start_request(&conns[0]);
                continue;
            }
            uint32_t what = events[i].events;
            if ((what & EPOLLOUT) && c->state == BUSY && c->sent < c->total) {
                push(c);
                progress_ns = 0;
            }
            if (what & (EPOLLIN | EPOLLHUP | EPOLLERR))
                pull(c);
        }
        if (!announced && ok) {
            announced = 1;
            puts("running");
            fflush(stdout);
        }
        if (reset_asked) {
            reset_asked = 0;
            n_latencies = ok = failed = finished = body_bytes = 0;
            memset(statuses, 0, sizeof statuses);
            cpu = cpu_seconds();
            began = now_ns();
        }
        if (n <= 0 || !progress_ns) {
            uint64_t now = now_ns();
            if (!progress_ns)
                progress_ns = now;
            else if (now - progress_ns > opt.stall_ns)
                die("no progress for %" PRIu64 " s; %" PRIu64 " of %" PRIu64 " answered",
                    opt.stall_ns / 1000000000ull, finished, opt.requests);
        }
    }
    double wall = (double)(now_ns() - began) / 1e9;
    cpu = cpu_seconds() - cpu;
    qsort(latencies, n_latencies, sizeof *latencies, by_value);
    printf("{\"requests\": %" PRIu64 ", \"ok\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"gave_up\": %s, "
           "\"reconnects\": %" PRIu64 ", \"body_bytes\": %" PRIu64 ", \"wall_s\": %.6f, \"client_cpu_s\": %.6f, "
           "\"requests_per_s\": %.3f, \"bytes_per_s\": %.1f, \"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, "
           "\"max_us\": %.2f, \"statuses\": {",
           finished, ok, failed, gave_up ? "true" : "false", reconnects, body_bytes, wall, cpu,
           wall > 0 ? (double)ok / wall : 0, wall > 0 ? (double)body_bytes / wall : 0, percentile_us(0.50),
           percentile_us(0.90), percentile_us(0.99), percentile_us(1.0));
    const char *comma = "";
    for (int s = 0; s < 600; s++)
        if (statuses[s]) {
            printf("%s\"%d\": %" PRIu64, comma, s, statuses[s]);
            comma = ", ";
        }
    printf("}, \"first_failure\": \"%s\"}\n", first_failure);
}

/* Guest memory that is free may have been handed back to the host; the next touch is 3-6 times dearer. */
static void touch(uint64_t bytes)
{
    unsigned char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap %" PRIu64 " bytes: %s", bytes, strerror(errno));
    for (uint64_t i = 0; i < bytes; i += 4096)
        memory[i] = 1;
    munmap(memory, bytes);
}

static uint64_t number(const char *name, const char *text)
{
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno || end == text || *end || *text == '-')
        die("--%s: not a number: %s", name, text);
    return value;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "touch")) {
        touch(number("touch", argv[2]));
        return 0;
    }
    if (argc == 2 && !strcmp(argv[1], "pattern")) {
        fill_pattern();
        return fwrite(hot, 1, HOT, stdout) == HOT ? 0 : 1;
    }
    if (argc < 2 || strcmp(argv[1], "run"))
        die("usage: lean_client run ... | touch BYTES | pattern");
    static const struct option names[] = {
        {"mode", 1, 0, 'm'},     {"host", 1, 0, 'h'},        {"port", 1, 0, 'p'},    {"connections", 1, 0, 'c'},
        {"requests", 1, 0, 'n'}, {"size", 1, 0, 's'},        {"targets", 1, 0, 't'}, {"seed", 1, 0, 'S'},
        {"interval-us", 1, 0, 'i'}, {"host-header", 1, 0, 'H'}, {"stall-timeout", 1, 0, 'T'}, {0, 0, 0, 0},
    };
    int which, index = 0;
    const char *mode = NULL;
    while ((which = getopt_long(argc - 1, argv + 1, "", names, &index)) != -1)
        switch (which) {
        case 'm': mode = optarg; break;
        case 'h': opt.host = optarg; break;
        case 'p': opt.port = optarg; break;
        case 'H': opt.host_header = optarg; break;
        case 't': opt.targets = optarg; break;
        case 'c': opt.connections = number("connections", optarg); break;
        case 'n': opt.requests = number("requests", optarg); break;
        case 's': opt.size = number("size", optarg); break;
        case 'S': opt.seed = number("seed", optarg); break;
        case 'i': opt.interval_ns = number("interval-us", optarg) * 1000; break;
        case 'T': opt.stall_ns = number("stall-timeout", optarg) * 1000000000ull; break;
        default: return 1;
        }
    if (!mode || !opt.port || !opt.targets || !opt.connections || (strcmp(mode, "put") && strcmp(mode, "get")))
        die("--mode put|get, --port, --targets and --connections are needed");
    opt.put = !strcmp(mode, "put");
    if (opt.interval_ns && opt.connections != 1)
        die("--interval-us needs --connections 1");
    if (opt.put && !opt.requests)
        die("--mode put needs --requests");
    if (!opt.host_header)
        opt.host_header = opt.host;
    run();
    return 0;
}
