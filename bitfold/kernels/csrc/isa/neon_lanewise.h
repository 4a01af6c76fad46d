/* NEON form of generic/lanewise.h: a block's constants are loaded once for a strip of pixels. */
#ifndef BITFOLD_NEON_LANEWISE_H
#define BITFOLD_NEON_LANEWISE_H

#include "generic/lanewise.h"
#include "isa/neon.h"

/* u8 input, pixel by pixel. */
BF_INLINE void bf_finish_indices(const bf_step *step, uint8_t *arena, bf_rows rows) {
  int32_t block[BF_LANES] = {0};
  const size_t num_pixels = rows.num_pixels;
  rows.num_pixels = 1;
  for (size_t i = 0; i < num_pixels; i++) {
    rows.acc = bf_load_block(step, arena, rows.at, rows.count, block);
    bf_finish_rows(step, arena, &rows);
    rows.at += step->c;
  }
}

BF_INLINE void bf_finish_strip(const bf_step *step, uint8_t *arena, bf_span pixels) {
  const size_t first = pixels.begin * step->c;
  for (size_t lane = 0; lane < step->c; lane += BF_LANES) {
    const bf_rows rows = {.acc = (const int32_t *)(const void *)(arena + step->x) + first + lane,
                          .stride = step->c,
                          .num_pixels = pixels.end - pixels.begin,
                          .lane = lane,
                          .count = bf_block_lanes(step, lane),
                          .at = first + lane};
    if (step->x_kind == BF_I32) {
      bf_finish_rows(step, arena, &rows);
    } else {
      bf_finish_indices(step, arena, rows);
    }
  }
}

BF_INLINE void bf_finish_tensor_neon(const bf_step *step, uint8_t *arena, const bf_share *share) {
  const bf_span pixels = bf_part(step->h * step->w, share);
  const size_t strip = bf_strip_pixels(step);
  for (size_t begin = pixels.begin; begin < pixels.end; begin += strip) {
    const size_t left = pixels.end - begin;
    bf_finish_strip(step, arena, (bf_span){begin, begin + (left < strip ? left : strip)});
  }
}

#endif
