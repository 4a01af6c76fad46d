/* Convolution by look-up: 16 sums of products to a row of the table (vpshufb). */
#include "isa/avx2_lookup.h"

void bf_conv2d_dictionary__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                                const bf_share *restrict share);

void bf_conv2d_dictionary__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                                const bf_share *restrict share) {
  const bf_lookup_tiles tiles = {NULL, bf_lookup_pair_avx2, bf_lookup_single_avx2};
  bf_convolve_lookups(step, arena, share, bf_encode_avx2, tiles);
}
