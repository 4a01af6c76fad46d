/* acc[o] = bias[o] + x_step * sum(index * weight), 32-bit products (vpmaddwd) of 16-bit words.
 */
#include "generic/conv2d_words.h"
#include "isa/avx2_dot.h"

void bf_conv2d_direct_wide__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_share *restrict share);

void bf_conv2d_direct_wide__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_share *restrict share) {
  bf_convolve_words(step, arena, share, bf_tile_wide, BF_SHORT_PIXELS);
}
