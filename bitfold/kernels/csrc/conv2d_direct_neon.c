/* acc[o] = bias[o] + x_step * sum(index * weight), 16-bit sums (smlal); indices up to 127. */
#include "isa/neon_mul.h"

static inline void bf_tile_plain(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_tile_place *restrict place) {
  bf_tile_short(step, arena, place, BF_PLAIN_INDEX);
}

void bf_conv2d_direct__neon(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share);

void bf_conv2d_direct__neon(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share) {
  bf_convolve(step, arena, share, bf_tile_plain, BF_SHORT_PIXELS);
}
