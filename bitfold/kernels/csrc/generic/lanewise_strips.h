/* Vector form of generic/lanewise.h: a block's constants are loaded once for a strip of pixels.
 *
 * Include an ISA's bf_rows and bf_finish_rows first.
 */
#ifndef BITFOLD_LANEWISE_STRIPS_H
#define BITFOLD_LANEWISE_STRIPS_H

#include "generic/lanewise.h"

enum { BF_WIDENED_PIXELS = 32 };

/* u8 input, widened a few pixels at a time; lanes that do not exist may hold anything. */
static inline void bf_finish_bytes(const bf_step *step, uint8_t *arena, bf_rows rows) {
  const uint8_t *x = arena + step->x + rows.at;
  const size_t num_pixels = rows.num_pixels;
  int32_t acc[BF_WIDENED_PIXELS * BF_LANES];
  rows.acc = acc;
  rows.stride = BF_LANES;
  for (size_t pixel = 0; pixel < num_pixels; pixel += BF_WIDENED_PIXELS) {
    const size_t left = num_pixels - pixel;
    rows.num_pixels = left < BF_WIDENED_PIXELS ? left : BF_WIDENED_PIXELS;
    for (size_t i = 0; i < rows.num_pixels; i++, x += step->c) {
      for (size_t j = 0; j < BF_LANES; j++) {
        acc[i * BF_LANES + j] = x[j];
      }
    }
    BF_FINISH_ROWS(step, arena, &rows);
    rows.at += rows.num_pixels * step->c;
  }
}

static inline void bf_finish_strip(const bf_step *step, uint8_t *arena, bf_span pixels) {
  const size_t first = pixels.begin * step->c;
  for (size_t lane = 0; lane < step->c; lane += BF_LANES) {
    const bf_rows rows = {.acc = (const int32_t *)(const void *)(arena + step->x) + first + lane,
                          .stride = step->c,
                          .num_pixels = pixels.end - pixels.begin,
                          .lane = lane,
                          .count = bf_block_lanes(step, lane),
                          .at = first + lane};
    if (step->x_kind == BF_I32) {
      BF_FINISH_ROWS(step, arena, &rows);
    } else {
      bf_finish_bytes(step, arena, rows);
    }
  }
}

static inline void bf_finish_strips(const bf_step *step, uint8_t *arena, const bf_share *share) {
  const bf_span pixels = bf_part(step->h * step->w, share);
  const size_t strip = bf_strip_pixels(step);
  for (size_t begin = pixels.begin; begin < pixels.end; begin += strip) {
    const size_t left = pixels.end - begin;
    bf_finish_strip(step, arena, (bf_span){begin, begin + (left < strip ? left : strip)});
  }
}

#endif
