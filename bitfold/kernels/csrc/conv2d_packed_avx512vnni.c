/* As direct, from panels of 1- to 4-bit indices. */
#include "isa/avx2_unpack.h"
#include "isa/avx512_dot.h"

void bf_conv2d_packed__avx512vnni(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_share *restrict share);

void bf_conv2d_packed__avx512vnni(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_share *restrict share) {
  const bf_block_tiles tiles = {bf_pair_vnni, bf_single_vnni, BF_PAIR_PIXELS, BF_SINGLE_PIXELS,
                                bf_quad_vnni};
  bf_convolve_pairs(step, arena, share, bf_expand_avx2, tiles);
}
