/* acc[o] = bias[o] + x_step * sum(index * weight), 16-bit products and sums (vpmaddubsw). */
#include "isa/avx2_dot.h"

void bf_conv2d_direct__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share);

void bf_conv2d_direct__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share) {
  bf_convolve(step, arena, share, bf_tile_short, BF_SHORT_PIXELS);
}
