/* Walks a plan: one call from Python per image or batch. */
#include <string.h>

#include "pool.h"

const char *bf_abi(void) { return BF_ABI; }

size_t bf_step_bytes(void) { return sizeof(bf_step); }

void bf_run_plan(const bf_step *restrict steps, size_t num_steps, uint8_t *restrict arena,
                 bf_pool *restrict pool) {
  static const bf_share alone = {0, 1};
  if (pool && bf_pool_run(pool, steps, num_steps, arena)) {
    return;
  }
  for (size_t i = 0; i < num_steps; i++) {
    steps[i].kernel(&steps[i], arena, &alone);
  }
}

void bf_run_batch(const bf_step *restrict steps, size_t num_steps, const bf_batch *restrict batch,
                  const uint8_t *restrict images, uint8_t *restrict logits, uint8_t *restrict arena,
                  bf_pool *restrict pool) {
  for (size_t i = 0; i < batch->num_images; i++) {
    memcpy(arena + batch->input_offset, images + i * batch->image_bytes, batch->image_bytes);
    bf_run_plan(steps, num_steps, arena, pool);
    memcpy(logits + i * batch->logit_bytes, arena + batch->output_offset, batch->logit_bytes);
  }
}
