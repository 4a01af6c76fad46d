/* Exact integer Winograd tiles, vpdpbusd; the scales of the positions lie in the weights. */
#include "isa/avx512_winograd.h"

void bf_conv2d_winograd__avx512vnni(const bf_step *restrict step, uint8_t *restrict arena,
                                    const bf_share *restrict share);

void bf_conv2d_winograd__avx512vnni(const bf_step *restrict step, uint8_t *restrict arena,
                                    const bf_share *restrict share) {
  bf_convolve_tiles(step, arena, share, bf_multiply_one, bf_multiply_two);
}
