/* One output pixel from the whole input, weights of 2, 4 or 8 bits; any width. */
#include "generic/conv2d_vector.h"

static inline void bf_dot_scalar(const bf_step *restrict step, const uint8_t *restrict x,
                                 const int8_t *restrict panel, int32_t *restrict dots) {
  const bf_vector *constants = step->extra;
  const size_t bits = constants->bits;
  uint32_t sums[BF_PANEL_LANES] = {0};
  for (size_t group = 0; group < constants->num_groups; group++) {
    const int8_t *bytes = panel + group * BF_GROUP_BYTES;
    for (size_t shift = 0; shift < 8; shift += bits) {
      for (size_t i = 0; i < BF_GROUP_BYTES; i++) {
        const int index = (uint8_t)bytes[i] >> shift & ((1 << bits) - 1);
        sums[i / 4] += (uint32_t)(x[i % 4] * (bits == 8 ? bytes[i] : index));
      }
      x += 4;
    }
  }
  for (size_t i = 0; i < BF_PANEL_LANES; i++) {
    dots[i] = (int32_t)sums[i];
  }
}

static inline void bf_finish_scalar(const bf_step *step, uint8_t *arena, const int32_t *acc,
                                    size_t lane, size_t count) {
  bf_finish(step, arena, acc, lane, count, lane);
}

void bf_conv2d_vector__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_share *restrict share);

void bf_conv2d_vector__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_share *restrict share) {
  bf_multiply_panels(step, arena, share, arena + step->x, bf_dot_scalar, bf_finish_scalar);
}
