/* Direct convolution's tile in plain C: 16 channels x 1 pixel, panels of 16 channels x 4 bytes. */
#ifndef BITFOLD_SCALAR_TILE_H
#define BITFOLD_SCALAR_TILE_H

#include "generic/conv2d_direct.h"

/* sums[16] += four input bytes times a 16 x 4 panel step; unsigned, so that it wraps. */
static inline void bf_add_quad(const uint8_t *restrict x, const int8_t *restrict weight,
                               uint32_t *restrict sums) {
  for (size_t i = 0; i < BF_LANES; i++) {
    const int32_t dot = x[0] * weight[4 * i] + x[1] * weight[4 * i + 1] + x[2] * weight[4 * i + 2] +
                        x[3] * weight[4 * i + 3];
    sums[i] += (uint32_t)dot;
  }
}

static inline void bf_tile_scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_tile_place *restrict place) {
  const int8_t *weight = place->panel;
  uint32_t sums[BF_LANES] = {0};
  for (size_t s = 0; s < step->num_segments; s++) {
    const uint8_t *x = place->windows[0] + step->segments[s].offset;
    for (size_t q = 0; q < step->segments[s].num_quads; q++) {
      bf_add_quad(x + 4 * q, weight, sums);
      weight += 4 * BF_LANES;
    }
  }
  for (size_t i = 0; place->higher && i < BF_LANES; i++) {
    sums[i] += (uint32_t)place->higher[i] << 8;
  }
  for (size_t i = 0; place->kept && i < BF_LANES; i++) {
    place->kept[i] = (int32_t)sums[i];
  }
  if (place->kept) {
    return;
  }
  int32_t acc[BF_LANES];
  for (size_t i = 0; i < BF_LANES; i++) {
    acc[i] = (int32_t)((uint32_t)step->bias[place->lane + i] + (uint32_t)step->x_step * sums[i]);
  }
  bf_finish(step, arena, acc, place->lane, place->count, place->at);
}

#endif
