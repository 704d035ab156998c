/* A libnvidia-ml.so.1 without a driver: each call goes to the mock over a Unix socket beside it.
 *
 * A process is known by a token, so that its threads share one initialisation, and a forked child
 * has none. Each thread has a connection of its own: who waits for an event holds up nobody.
 *
 * A call: u32 length of the rest, u8 length of the name, the name, u8 count of arguments, then for
 * each argument u8 kind, and u64 value or u32 size and bytes. An answer: u32 length of the rest,
 * u32 status, then u32 size and bytes for each argument that is written. Numbers are little-endian,
 * as both ends are one machine.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define DRIVER_NOT_LOADED 9
#define TIMEOUT 10
#define UNKNOWN 999
#define FOR_EVER 0xFFFFFFFFu
#define SLICE 1000u
#define MOST_ARGUMENTS 8
#define LARGEST (1u << 20)

enum kind { VALUE = 0, WRITTEN = 1, GIVEN = 2, NOTHING = 3, ROOM = 4 };

struct argument {
    enum kind kind;
    uint64_t value;
    void *data;
    uint32_t size;
};

struct connection {
    int fd;
    pid_t owner;
};

static pthread_mutex_t token_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t token[2];
static pid_t token_owner;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;

static void hang_up(void *held) {
    struct connection *connection = held;
    if (connection->fd >= 0) close(connection->fd);
    free(connection);
}

static void make_key(void) { pthread_key_create(&key, hang_up); }

static int send_all(int fd, const void *data, size_t size) {
    const char *at = data;
    while (size > 0) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return -1;
        at += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static int receive_all(int fd, void *data, size_t size) {
    char *at = data;
    while (size > 0) {
        ssize_t got = recv(fd, at, size, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return -1;
        at += got;
        size -= (size_t)got;
    }
    return 0;
}

static int dial(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    Dl_info self;
    if (!dladdr((void *)dial, &self) || self.dli_fname == NULL) return -1;
    char real[4096];
    const char *name = realpath(self.dli_fname, real) ? real : self.dli_fname;
    const char *slash = strrchr(name, '/');
    int folder = slash ? (int)(slash - name) : 1;
    int length = snprintf(address.sun_path, sizeof address.sun_path, "%.*s/nvml.sock", folder,
                          slash ? name : ".");
    if (length < 0 || (size_t)length >= sizeof address.sun_path) return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    pthread_mutex_lock(&token_lock);
    if (token_owner != getpid()) {
        token_owner = getpid();
        token[0] = (uint64_t)token_owner;
        if (getrandom(&token[1], sizeof token[1], 0) != sizeof token[1]) token[1] = token[0];
    }
    uint64_t hello[2] = {token[0], token[1]};
    pthread_mutex_unlock(&token_lock);
    if (send_all(fd, hello, sizeof hello) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Return this thread's connection, made in this process; -1 without a mock that answers. */
static int line(struct connection **held) {
    pthread_once(&key_once, make_key);
    struct connection *mine = pthread_getspecific(key);
    if (mine == NULL) {
        mine = malloc(sizeof *mine);
        if (mine == NULL) return -1;
        mine->fd = -1;
        mine->owner = getpid();
        pthread_setspecific(key, mine);
    }
    if (mine->owner != getpid()) { /* forked: the connection is the parent's */
        if (mine->fd >= 0) close(mine->fd);
        mine->fd = -1;
        mine->owner = getpid();
    }
    if (mine->fd < 0) mine->fd = dial();
    *held = mine;
    return mine->fd;
}

static unsigned int lose(struct connection *held, void *first, void *second) {
    if (held->fd >= 0) close(held->fd);
    held->fd = -1;
    free(first);
    free(second);
    return UNKNOWN;
}

static unsigned int call(const char *name, struct argument *arguments, int count) {
    struct connection *held = NULL;
    if (line(&held) < 0) return DRIVER_NOT_LOADED;
    size_t name_length = strlen(name);
    size_t size = 4 + 1 + name_length + 1;
    for (int at = 0; at < count; at++) {
        struct argument *one = &arguments[at];
        size += 1 + 8;
        if (one->kind == WRITTEN || one->kind == GIVEN) size += one->size;
    }
    unsigned char *request = malloc(size);
    if (request == NULL) return UNKNOWN;
    unsigned char *to = request + 4;
    *to++ = (unsigned char)name_length;
    memcpy(to, name, name_length);
    to += name_length;
    *to++ = (unsigned char)count;
    for (int at = 0; at < count; at++) {
        struct argument *one = &arguments[at];
        *to++ = (unsigned char)one->kind;
        if (one->kind == VALUE) {
            memcpy(to, &one->value, 8);
            to += 8;
        } else if (one->kind == WRITTEN || one->kind == GIVEN) {
            memcpy(to, &one->size, 4);
            memcpy(to + 4, one->data, one->size);
            to += 4 + one->size;
        }
    }
    uint32_t rest = (uint32_t)(to - request - 4);
    memcpy(request, &rest, 4);
    uint32_t length = 0;
    if (send_all(held->fd, request, 4 + rest) != 0 || receive_all(held->fd, &length, 4) != 0 ||
        length < 4 || length > LARGEST)
        return lose(held, request, NULL);
    unsigned char *answer = malloc(length);
    if (answer == NULL || receive_all(held->fd, answer, length) != 0)
        return lose(held, request, answer);
    uint32_t status = 0;
    memcpy(&status, answer, 4);
    size_t from = 4;
    for (int at = 0; at < count; at++) {
        struct argument *one = &arguments[at];
        uint32_t written = 0;
        if (one->kind != WRITTEN && one->kind != ROOM) continue;
        if (from + 4 > length) return lose(held, request, answer);
        memcpy(&written, answer + from, 4);
        from += 4;
        if (from + written > length || (one->kind == WRITTEN && written > one->size))
            return lose(held, request, answer);
        memcpy(one->data, answer + from, written);
        from += written;
    }
    free(request);
    free(answer);
    return status;
}

static struct argument by_value(uint64_t value) {
    return (struct argument){.kind = VALUE, .value = value};
}

static struct argument by_pointer(const void *data, size_t size) {
    if (data == NULL || size > LARGEST / 2) return (struct argument){.kind = NOTHING};
    return (struct argument){.kind = WRITTEN, .data = (void *)data, .size = (uint32_t)size};
}

static struct argument by_text(const char *text) {
    if (text == NULL) return (struct argument){.kind = NOTHING};
    return (struct argument){
        .kind = GIVEN, .data = (void *)text, .size = (uint32_t)strnlen(text, 4096)};
}

static struct argument by_room(void *data) {
    return (struct argument){.kind = data ? ROOM : NOTHING, .data = data};
}

/* The size stands in the lowest 24 bits of a versioned struct's first word. */
static struct argument by_version(void *data) {
    uint32_t word = 0;
    if (data != NULL) memcpy(&word, data, 4);
    word &= 0xFFFFFF;
    return by_pointer(data, word < 4 || word > 65536 ? 4 : word);
}

static size_t pointed(const unsigned int *count) { return count ? *count : 0; }

/* A long wait is asked for in slices: the mock notices sooner that its caller has gone. */
EXPORT unsigned int nvmlEventSetWait_v2(void *set, void *data, unsigned int timeout) {
    unsigned int left = timeout;
    for (;;) {
        unsigned int slice = left > SLICE ? SLICE : left;
        struct argument arguments[] = {by_value((uint64_t)(uintptr_t)set), by_pointer(data, 32),
                                       by_value(slice)};
        unsigned int status = call("nvmlEventSetWait_v2", arguments, 3);
        if (status != TIMEOUT) return status;
        if (timeout != FOR_EVER) left -= slice;
        if (left == 0) return status;
    }
}

#include "stubs.h"
