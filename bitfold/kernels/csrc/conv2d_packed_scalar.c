/* As direct, from panels of 1- to 4-bit indices. */
#include "generic/conv2d_tiles.h"
#include "generic/scalar_tile.h"
#include "generic/unpack.h"

void bf_conv2d_packed__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_share *restrict share);

void bf_conv2d_packed__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_share *restrict share) {
  bf_convolve_packed(step, arena, share, bf_expand_scalar, bf_tile_scalar, 1);
}
