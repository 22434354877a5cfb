#define _GNU_SOURCE
#include "buffer.h"

#include "sizes.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

enum { HUGE_PAGE = 2 << 20 };

struct buffers {
    void *data[BUFFER_USES];
    size_t bytes[BUFFER_USES];
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

void *buffer_new(size_t bytes)
{
    size_t alignment = bytes < HUGE_PAGE ? LINE : HUGE_PAGE;
    void *buffer;
    if (bytes > SIZE_MAX / 2 || posix_memalign(&buffer, alignment, bytes ? bytes : LINE))
        return NULL;
#if defined(MADV_HUGEPAGE)
    if (bytes >= HUGE_PAGE) /* advice only: where it is refused, small pages serve */
        (void)madvise(buffer, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return buffer;
}

void buffer_free(void *buffer)
{
    free(buffer);
}

static void thread_ends(void *value)
{
    struct buffers *mine = value;
    for (int use = 0; use < BUFFER_USES; use++)
        buffer_free(mine->data[use]);
    free(mine);
}

static void make_key(void)
{
    pthread_key_create(&key, thread_ends);
}

static struct buffers *buffers_of_thread(void)
{
    pthread_once(&once, make_key);
    struct buffers *mine = pthread_getspecific(key);
    if (!mine && (mine = calloc(1, sizeof *mine)) && pthread_setspecific(key, mine)) {
        free(mine);
        return NULL;
    }
    return mine;
}

void *buffer_of_thread(buffer_use use, size_t bytes)
{
    struct buffers *mine = buffers_of_thread();
    if (!mine)
        return NULL;
    if (!mine->data[use] || mine->bytes[use] < bytes) {
        buffer_free(mine->data[use]);
        mine->data[use] = buffer_new(bytes);
        mine->bytes[use] = mine->data[use] ? bytes : 0;
    }
    return mine->data[use];
}
