/* Bit-serial convolution: AND and vpopcntd. */
#include "isa/avx512_bits.h"

void bf_conv2d_bitserial__avx512vpopcntdq(const bf_step *restrict step, uint8_t *restrict arena);

void bf_conv2d_bitserial__avx512vpopcntdq(const bf_step *restrict step, uint8_t *restrict arena) {
  bf_convolve_planes(step, arena, bf_pack_avx2, bf_dot_avx512);
}
