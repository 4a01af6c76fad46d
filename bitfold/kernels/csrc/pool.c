/* A session's threads: asleep between runs, spinning between the steps of one. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "pool.h"

/* How often a thread looks for the others before it gives its core away. */
enum { BF_PATIENCE = 4096 };

typedef struct bf_worker {
  bf_pool *pool;
  size_t index;
  pthread_t thread;
} bf_worker;

struct bf_pool {
  size_t count; /* threads, the caller's among them */
  bf_worker *workers;
  pthread_mutex_t caller; /* held by who the pool works for */
  pthread_mutex_t lock;   /* of what follows */
  pthread_cond_t wake;
  size_t run, stopped;
  const bf_step *steps;
  size_t num_steps;
  uint8_t *arena;
  atomic_size_t arrived, passed; /* the barrier: threads that wait, barriers behind us */
};

static void bf_pause(size_t turn) {
  if (turn >= BF_PATIENCE) {
    sched_yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/* Returns when all threads of the pool have come here. */
static void bf_meet(bf_pool *pool) {
  const size_t passed = atomic_load_explicit(&pool->passed, memory_order_acquire);
  if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) + 1 == pool->count) {
    atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->passed, passed + 1, memory_order_release);
    return;
  }
  for (size_t turn = 0; atomic_load_explicit(&pool->passed, memory_order_acquire) == passed;
       turn++) {
    bf_pause(turn);
  }
}

static void bf_walk_shared(bf_pool *pool, const bf_step *steps, size_t num_steps, uint8_t *arena,
                           size_t index) {
  const bf_share share = {index, pool->count};
  for (size_t i = 0; i < num_steps; i++) {
    steps[i].kernel(&steps[i], arena, &share);
    bf_meet(pool);
  }
}

static void *bf_work(void *argument) {
  const bf_worker *self = argument;
  bf_pool *pool = self->pool;
  size_t seen = 0;
  for (;;) {
    pthread_mutex_lock(&pool->lock);
    while (pool->run == seen && !pool->stopped) {
      pthread_cond_wait(&pool->wake, &pool->lock);
    }
    seen = pool->run;
    const size_t stopped = pool->stopped, num_steps = pool->num_steps;
    const bf_step *steps = pool->steps;
    uint8_t *arena = pool->arena;
    pthread_mutex_unlock(&pool->lock);
    if (stopped) {
      return NULL;
    }
    bf_walk_shared(pool, steps, num_steps, arena, self->index);
  }
}

size_t bf_pool_run(bf_pool *pool, const bf_step *steps, size_t num_steps, uint8_t *arena) {
  if (pthread_mutex_trylock(&pool->caller)) {
    return 0;
  }
  pthread_mutex_lock(&pool->lock);
  pool->steps = steps;
  pool->num_steps = num_steps;
  pool->arena = arena;
  pool->run++;
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
  bf_walk_shared(pool, steps, num_steps, arena, 0);
  pthread_mutex_unlock(&pool->caller);
  return 1;
}

/* Stops the first `started` workers and frees the pool. */
static void bf_dismiss(bf_pool *pool, size_t started) {
  pthread_mutex_lock(&pool->lock);
  pool->stopped = 1;
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
  for (size_t i = 0; i < started; i++) {
    pthread_join(pool->workers[i].thread, NULL);
  }
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->lock);
  pthread_mutex_destroy(&pool->caller);
  free(pool->workers);
  free(pool);
}

bf_pool *bf_pool_start(size_t num_threads) {
  if (num_threads < 2) {
    return NULL;
  }
  bf_pool *pool = calloc(1, sizeof *pool);
  bf_worker *workers = calloc(num_threads - 1, sizeof *workers);
  if (!pool || !workers) {
    free(pool);
    free(workers);
    return NULL;
  }
  pool->count = num_threads;
  pool->workers = workers;
  pthread_mutex_init(&pool->caller, NULL);
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->wake, NULL);
  atomic_init(&pool->arrived, 0);
  atomic_init(&pool->passed, 0);
  for (size_t i = 0; i < num_threads - 1; i++) {
    workers[i] = (bf_worker){.pool = pool, .index = i + 1};
    if (pthread_create(&workers[i].thread, NULL, bf_work, &workers[i])) {
      bf_dismiss(pool, i);
      return NULL;
    }
  }
  return pool;
}

void bf_pool_stop(bf_pool *pool) {
  if (pool) {
    pthread_mutex_lock(&pool->caller); /* wait for who the pool works for */
    pthread_mutex_unlock(&pool->caller);
    bf_dismiss(pool, pool->count - 1);
  }
}
