/* Runs an epilogue over a whole (H, W, C) tensor, in blocks of 16 channels. */
#ifndef BITFOLD_LANEWISE_H
#define BITFOLD_LANEWISE_H

#include "generic/epilogue.h"
#include "generic/share.h"

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

static inline size_t bf_block_lanes(const bf_step *restrict step, size_t lane) {
  const size_t left = step->c - lane;
  return left < BF_LANES ? left : BF_LANES;
}

enum { BF_STRIP_ELEMENTS = 8192 };

/* Pixels that vector forms finish block by block before they go on: few enough to stay in cache. */
static inline size_t bf_strip_pixels(const bf_step *restrict step) {
  const size_t pixels = BF_STRIP_ELEMENTS / step->c;
  return pixels ? pixels : 1;
}

static inline void bf_finish_tensor(const bf_step *restrict step, uint8_t *arena,
                                    const bf_share *restrict share) {
  const bf_span pixels = bf_part(step->h * step->w, share);
  int32_t block[BF_LANES] = {0};
  for (size_t pixel = pixels.begin; pixel < pixels.end; pixel++) {
    for (size_t lane = 0; lane < step->c; lane += BF_LANES) {
      const size_t count = bf_block_lanes(step, lane);
      const size_t at = pixel * step->c + lane;
      bf_finish(step, arena, bf_load_block(step, arena, at, count, block), lane, count, at);
    }
  }
}

#endif
