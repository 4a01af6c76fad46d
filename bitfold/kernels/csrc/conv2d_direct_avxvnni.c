/* acc[o] = bias[o] + x_step * sum(index * weight), 256-bit vpdpbusd; any width. */
#include "isa/avxvnni_dot.h"

void bf_conv2d_direct__avxvnni(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share);

void bf_conv2d_direct__avxvnni(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share) {
  bf_convolve(step, arena, share, bf_tile_avxvnni, BF_SHORT_PIXELS);
}
