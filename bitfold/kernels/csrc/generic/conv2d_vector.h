/* What the rows of layout `vector` share: one output pixel whose window is the whole input.
 *
 * A panel is 32 channels; a group of 8 / bits quads of input lies in 128 bytes of it, quad s in
 * bits s * bits of every byte. acc = bias + x_step * (w_step * dot + w_lo * sum of the input).
 */
#ifndef BITFOLD_CONV2D_VECTOR_H
#define BITFOLD_CONV2D_VECTOR_H

#include "generic/epilogue.h"
#include "generic/share.h"

enum { BF_PANEL_LANES = 32, BF_GROUP_BYTES = 4 * BF_PANEL_LANES };

/* dots[32] of one panel; ISA-specific. `x` is as the row's bf_vector_input left it. */
typedef void (*bf_vector_dot)(const bf_step *restrict step, const uint8_t *restrict x,
                              const int8_t *restrict panel, int32_t *restrict dots);

static inline size_t bf_window_bytes(const bf_step *restrict step) {
  return step->h * step->w * step->c;
}

static inline uint32_t bf_sum_bytes(const uint8_t *restrict x, size_t count) {
  uint32_t sum = 0;
  for (size_t i = 0; i < count; i++) {
    sum += x[i];
  }
  return sum;
}

/* Writes `count` results of lanes `lane` … of the one pixel; plain C or of an ISA. */
typedef void (*bf_vector_finish)(const bf_step *step, uint8_t *arena, const int32_t *acc,
                                 size_t lane, size_t count);

/* acc = bias + x_step * (w_step * dot + w_lo * total), modulo 2^32, of a panel's lanes. */
static inline void bf_add_constants(const bf_step *restrict step, size_t lane, uint32_t total,
                                    int32_t *restrict acc) {
  for (size_t j = 0; j < BF_PANEL_LANES; j++) {
    const uint32_t codes = (uint32_t)step->w_step * (uint32_t)acc[j];
    const uint32_t sum = codes + (uint32_t)step->w_lo * total;
    acc[j] = (int32_t)((uint32_t)step->bias[lane + j] + (uint32_t)step->x_step * sum);
  }
}

/* The share's panels, `x` being the input or its copy in a form of the row's own. */
static inline __attribute__((always_inline)) void bf_multiply_panels(
    const bf_step *restrict step, uint8_t *restrict arena, const bf_share *restrict share,
    const uint8_t *x, const bf_vector_dot dot, const bf_vector_finish finish) {
  const bf_span panels = bf_part((step->o + BF_PANEL_LANES - 1) / BF_PANEL_LANES, share);
  const uint32_t total =
      step->w_lo ? bf_sum_bytes(arena + step->x, bf_window_bytes(step)) : (uint32_t)0;
  for (size_t i = panels.begin; i < panels.end; i++) {
    const size_t first = i * BF_PANEL_LANES;
    int32_t acc[BF_PANEL_LANES];
    dot(step, x, (const int8_t *)step->weight + i * step->panel_bytes, acc);
    bf_add_constants(step, first, total, acc);
    for (size_t lane = first; lane < first + BF_PANEL_LANES && lane < step->o; lane += BF_LANES) {
      const size_t left = step->o - lane;
      finish(step, arena, acc + (lane - first), lane, left < BF_LANES ? left : BF_LANES);
    }
  }
}

#endif
