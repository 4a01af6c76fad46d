/* Bit-serial convolution: AND and population count by look-up (vpshufb). */
#include "isa/avx2_bits.h"

void bf_conv2d_bitserial__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share);

void bf_conv2d_bitserial__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share) {
  bf_convolve_planes(step, arena, share, bf_pack_avx2, bf_dot_avx2);
}
