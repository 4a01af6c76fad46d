/* Runs an epilogue over a whole (H, W, C) tensor, in blocks of 16 channels. */
#ifndef BITFOLD_LANEWISE_H
#define BITFOLD_LANEWISE_H

#include "generic/epilogue.h"

typedef void (*bf_finisher)(const bf_step *restrict step, uint8_t *arena, const int32_t *acc,
                            size_t lane, size_t count, size_t at);

/* Input elements at … at + count - 1 as int32; u8 input is widened into `block`. */
static inline const int32_t *bf_load_block(const bf_step *restrict step, const uint8_t *arena,
                                           size_t at, size_t count, int32_t *restrict block) {
  if (step->x_kind == BF_I32) {
    return (const int32_t *)(const void *)(arena + step->x) + at;
  }
  for (size_t i = 0; i < count; i++) {
    block[i] = arena[step->x + at + i];
  }
  return block;
}

static inline __attribute__((always_inline)) void bf_finish_all(const bf_step *restrict step,
                                                                uint8_t *arena,
                                                                const bf_finisher finish) {
  int32_t block[BF_LANES] = {0};
  for (size_t pixel = 0; pixel < step->h * step->w; pixel++) {
    for (size_t lane = 0; lane < step->c; lane += BF_LANES) {
      const size_t left = step->c - lane;
      const size_t count = left < BF_LANES ? left : BF_LANES;
      const size_t at = pixel * step->c + lane;
      finish(step, arena, bf_load_block(step, arena, at, count, block), lane, count, at);
    }
  }
}

#endif
