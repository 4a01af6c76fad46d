/* acc[c] = bias[c] + x_step * sum(index[c] * weight[c]), channel by channel; any width. */
#include "isa/neon_depthwise.h"

void bf_conv2d_depthwise__neon(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share);

void bf_conv2d_depthwise__neon(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share) {
  bf_convolve_channels(step, arena, share, bf_run_neon);
}
