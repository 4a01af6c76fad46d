/* One output pixel from the whole input: weights of 2 or 4 bits stay packed; 8 bits, any width. */
#include "isa/avx2_vector.h"

void bf_conv2d_vector__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share);

void bf_conv2d_vector__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share) {
  const bf_vector *constants = step->extra;
  if (constants->flush) {
    bf_multiply_panels(step, arena, share, arena + step->x, bf_dot_short, bf_finish_lanes);
  } else {
    uint8_t *words = bf_scratch(step, arena, share);
    bf_widen_bytes(arena + step->x, bf_window_bytes(step), words);
    bf_multiply_panels(step, arena, share, words, bf_dot_wide, bf_finish_lanes);
  }
}
