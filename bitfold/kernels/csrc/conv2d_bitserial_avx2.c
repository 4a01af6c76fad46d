/* Bit-serial convolution: AND and population count by look-up (vpshufb). */
#include "isa/avx2_bits.h"

void bf_conv2d_bitserial__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share);

void bf_conv2d_bitserial__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share) {
  const bf_plane_ways ways = {bf_pack_avx2,     bf_dot_avx2,      NULL,
                              bf_finish_planes, bf_gather_planes, bf_recombine_dots};
  bf_convolve_plane_tiles(step, arena, share, ways);
}
