/* acc[o] = bias[o] + x_step * sum(index * weight), 16-bit products and sums (vpmaddubsw). */
#include "isa/avx512_short.h"

void bf_conv2d_direct__avx512bw(const bf_step *restrict step, uint8_t *restrict arena,
                                const bf_share *restrict share);

void bf_conv2d_direct__avx512bw(const bf_step *restrict step, uint8_t *restrict arena,
                                const bf_share *restrict share) {
  const bf_block_tiles tiles = {bf_pair_short, bf_single_short, BF_PAIR_PIXELS, BF_SINGLE_PIXELS,
                                NULL};
  bf_convolve_pairs(step, arena, share, NULL, tiles);
}
