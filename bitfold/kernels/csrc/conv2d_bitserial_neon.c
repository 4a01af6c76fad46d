/* Bit-serial convolution: population counts by cnt. */
#include "isa/neon_bits.h"

void bf_conv2d_bitserial__neon(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share);

void bf_conv2d_bitserial__neon(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share) {
  bf_convolve_planes(step, arena, share, bf_pack_neon, bf_dot_neon);
}
