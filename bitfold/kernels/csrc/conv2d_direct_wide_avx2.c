/* acc[o] = bias[o] + x_step * sum(index * weight), 32-bit products (vpmaddwd), any 8-bit operands.
 */
#include "isa/avx2_dot.h"

void bf_conv2d_direct_wide__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_share *restrict share);

void bf_conv2d_direct_wide__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_share *restrict share) {
  bf_convolve(step, arena, share, bf_tile_wide, BF_WIDE_PIXELS);
}
