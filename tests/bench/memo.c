/* Preloaded before the mock's libnvidia-ml.so.1: what a GPU's links are is asked once.
 *
 * The mock's library asks a server for each call, which a driver does not. With this, a program that reads the
 * links again and again pays for it once, so that what is measured is the program's own: the best case for it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PLACES 16384
#define MOST 96

struct answer {
    const void *function;
    uintptr_t a, b;
    unsigned int code;
    unsigned char data[MOST];
};

static struct answer answers[PLACES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Returns where the answer is, or shall be. There are far more places than questions. */
static struct answer *find(const void *function, uintptr_t a, uintptr_t b) {
    uintptr_t at = (uintptr_t)function * 31 + a * 1009 + b * 7919;
    at ^= at >> 17;
    for (;; at++) {
        struct answer *one = &answers[at % PLACES];
        if (one->function == NULL || (one->function == function && one->a == a && one->b == b)) return one;
    }
}

#define REMEMBER(name, size, parameters, arguments, first, second, out)                       \
    unsigned int name parameters {                                                            \
        static unsigned int(*ask) parameters;                                                 \
        static const char self;                                                               \
        size_t kept = (size) < MOST ? (size) : MOST;                                          \
        pthread_mutex_lock(&lock);                                                            \
        if (ask == NULL) ask = (unsigned int(*) parameters)dlsym(RTLD_NEXT, #name);           \
        struct answer *known = find(&self, (uintptr_t)(first), (uintptr_t)(second));          \
        if (known->function == NULL) {                                                        \
            known->a = (uintptr_t)(first);                                                    \
            known->b = (uintptr_t)(second);                                                   \
            known->code = ask arguments;                                                      \
            memcpy(known->data, out, kept);                                                   \
            known->function = &self;                                                          \
        } else {                                                                              \
            memcpy(out, known->data, kept);                                                   \
        }                                                                                     \
        unsigned int code = known->code;                                                      \
        pthread_mutex_unlock(&lock);                                                          \
        return code;                                                                          \
    }

/* sizeof(nvmlPciInfo_t) is 68. */
REMEMBER(nvmlDeviceGetNvLinkState, 4, (void *gpu, unsigned int link, void *out), (gpu, link, out), gpu, link, out)
REMEMBER(nvmlDeviceGetNvLinkRemotePciInfo_v2, 68, (void *gpu, unsigned int link, void *out), (gpu, link, out), gpu,
         link, out)
REMEMBER(nvmlDeviceGetTopologyCommonAncestor, 4, (void *one, void *other, void *out), (one, other, out), one, other,
         out)
REMEMBER(nvmlDeviceGetPciInfo_v3, 68, (void *gpu, void *out), (gpu, out), gpu, 0, out)
REMEMBER(nvmlDeviceGetName, length, (void *gpu, void *out, unsigned int length), (gpu, out, length), gpu, length, out)
REMEMBER(nvmlDeviceGetUUID, length, (void *gpu, void *out, unsigned int length), (gpu, out, length), gpu, length, out)
