/* acc[o] = bias[o] + x_step * sum((index - 128) * weight), sdot; any width. */
#include "isa/neon_dot.h"

static inline void bf_tile_shifted(const bf_step *restrict step, uint8_t *restrict arena,
                                   const bf_tile_place *restrict place) {
  bf_tile_dot(step, arena, place, BF_SHIFTED_INDEX);
}

void bf_conv2d_direct_signed__neondot(const bf_step *restrict step, uint8_t *restrict arena,
                                      const bf_share *restrict share);

void bf_conv2d_direct_signed__neondot(const bf_step *restrict step, uint8_t *restrict arena,
                                      const bf_share *restrict share) {
  bf_convolve(step, arena, share, bf_tile_shifted, BF_DOT_PIXELS);
}
