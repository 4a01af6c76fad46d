/* acc[c] = bias[c] + x_step * sum(index[c] * weight[c]), 64 channels a
 * register. */
#include "isa/avx512_depthwise.h"

void bf_conv2d_depthwise__avx512bw(const bf_step *restrict step, uint8_t *restrict arena,
                                   const bf_share *restrict share);

void bf_conv2d_depthwise__avx512bw(const bf_step *restrict step, uint8_t *restrict arena,
                                   const bf_share *restrict share) {
  bf_convolve_channels(step, arena, share, bf_run_channels);
}
