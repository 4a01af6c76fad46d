/* acc[o] = bias[o] + x_step * sum((index - 128) * weight), 16-bit sums (smlal); any width. */
#include "isa/neon_mul.h"

static inline void bf_tile_shifted(const bf_step *restrict step, uint8_t *restrict arena,
                                   const bf_tile_place *restrict place) {
  bf_tile_short(step, arena, place, BF_SHIFTED_INDEX);
}

void bf_conv2d_direct_signed__neon(const bf_step *restrict step, uint8_t *restrict arena,
                                   const bf_share *restrict share);

void bf_conv2d_direct_signed__neon(const bf_step *restrict step, uint8_t *restrict arena,
                                   const bf_share *restrict share) {
  bf_convolve(step, arena, share, bf_tile_shifted, BF_SHORT_PIXELS);
}
