/* acc[o] = bias[o] + x_step * sum(index * weight), sdot; indices up to 127. */
#include "isa/neon_dot.h"

static inline void bf_tile_plain(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_tile_place *restrict place) {
  bf_tile_dot(step, arena, place, BF_PLAIN_INDEX);
}

void bf_conv2d_direct__neondot(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share);

void bf_conv2d_direct__neondot(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share) {
  bf_convolve(step, arena, share, bf_tile_plain, BF_DOT_PIXELS);
}
