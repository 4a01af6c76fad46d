/* Between run.c and pool.c. */
#ifndef BITFOLD_POOL_H
#define BITFOLD_POOL_H

#include "bitfold_kernels.h"

/* Walks the steps with all threads; 0 and nothing done while the pool works for somebody else. */
size_t bf_pool_run(bf_pool *pool, const bf_step *steps, size_t num_steps, uint8_t *arena);

#endif
