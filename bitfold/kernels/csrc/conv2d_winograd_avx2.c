/* Exact integer Winograd tiles, 16-bit products and sums (vpmaddubsw). */
#include "isa/avx2_winograd.h"

void bf_conv2d_winograd__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_share *restrict share);

void bf_conv2d_winograd__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_share *restrict share) {
  bf_convolve_tiles(step, arena, share, bf_multiply_short, NULL);
}
