/* Bit-serial convolution: AND and vpopcntd. */
#include "isa/avx512_bits.h"

void bf_conv2d_bitserial__avx512vpopcntdq(const bf_step *restrict step, uint8_t *restrict arena,
                                          const bf_share *restrict share);

void bf_conv2d_bitserial__avx512vpopcntdq(const bf_step *restrict step, uint8_t *restrict arena,
                                          const bf_share *restrict share) {
  const bf_plane_ways ways = {bf_pack_avx512,       bf_dot_avx512,    bf_tile_avx512,
                              bf_finish_plane_rows, bf_gather_avx512, bf_recombine_avx512};
  bf_convolve_plane_tiles(step, arena, share, ways);
}
