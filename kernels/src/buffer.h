/* Memory for panels: aligned to cache lines, in huge pages where it is large. */
#ifndef OUIGEMM_BUFFER_H
#define OUIGEMM_BUFFER_H

#include <stddef.h>

/* NULL if there is no memory. The content is undefined. */
void *buffer_new(size_t bytes);
void buffer_free(void *buffer);

/* A buffer of the calling thread that lives until the thread ends and grows on demand: fresh pages
   for every product would cost more than a small product. */
typedef enum buffer_use { BUFFER_A, BUFFER_B, BUFFER_C, BUFFER_USES } buffer_use;
void *buffer_of_thread(buffer_use use, size_t bytes);

#endif
