/* Walks a plan: one call from Python per image or batch. */
#include <string.h>

#include "bitfold_kernels.h"

size_t bf_step_bytes(void) { return sizeof(bf_step); }

void bf_run_plan(const bf_step *restrict steps, size_t num_steps, uint8_t *restrict arena) {
  for (size_t i = 0; i < num_steps; i++) {
    steps[i].kernel(&steps[i], arena);
  }
}

void bf_run_batch(const bf_step *restrict steps, size_t num_steps, const bf_batch *restrict batch,
                  const uint8_t *restrict images, uint8_t *restrict logits,
                  uint8_t *restrict arena) {
  for (size_t i = 0; i < batch->num_images; i++) {
    memcpy(arena + batch->input_offset, images + i * batch->image_bytes, batch->image_bytes);
    bf_run_plan(steps, num_steps, arena);
    memcpy(logits + i * batch->logit_bytes, arena + batch->output_offset, batch->logit_bytes);
  }
}
