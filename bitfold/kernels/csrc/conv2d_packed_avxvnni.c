/* As direct, from panels of 1- to 4-bit indices. */
#include "isa/avx2_unpack.h"
#include "isa/avxvnni_dot.h"

void bf_conv2d_packed__avxvnni(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share);

void bf_conv2d_packed__avxvnni(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_share *restrict share) {
  bf_convolve_packed(step, arena, share, bf_expand_avx2, bf_tile_avxvnni, BF_SHORT_PIXELS);
}
