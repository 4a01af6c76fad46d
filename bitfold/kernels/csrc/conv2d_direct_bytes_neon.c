/* acc[o] = bias[o] + x_step * sum(index * weight), 8-bit sums (mla); few levels. */
#include "isa/neon_mul.h"

void bf_conv2d_direct_bytes__neon(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_share *restrict share);

void bf_conv2d_direct_bytes__neon(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_share *restrict share) {
  bf_convolve(step, arena, share, bf_tile_bytes, BF_BYTE_PIXELS);
}
