/* acc[o] = bias[o] + x_step * sum(index * weight), panels of 16 channels x 4 bytes; any width. */
#include "generic/scalar_tile.h"

void bf_conv2d_direct__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_share *restrict share);

void bf_conv2d_direct__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_share *restrict share) {
  bf_convolve(step, arena, share, bf_tile_scalar, 1);
}
