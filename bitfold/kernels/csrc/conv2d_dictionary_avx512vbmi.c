/* Convolution by look-up: 64 sums of products to a row of the table (vpermb). */
#include "isa/avx512_lookup.h"

void bf_conv2d_dictionary__avx512vbmi(const bf_step *restrict step, uint8_t *restrict arena,
                                      const bf_share *restrict share);

void bf_conv2d_dictionary__avx512vbmi(const bf_step *restrict step, uint8_t *restrict arena,
                                      const bf_share *restrict share) {
  const bf_lookup_tiles tiles = {bf_lookup_quad_vbmi, bf_lookup_pair_vbmi, bf_lookup_single_vbmi};
  bf_convolve_lookups(step, arena, share, bf_encode_vbmi, tiles);
}
