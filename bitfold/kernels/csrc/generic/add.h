/* out = x + y on windows of their channels. Including files define bf_add_run before. */
#ifndef BITFOLD_ADD_H
#define BITFOLD_ADD_H

#include "generic/share.h"

static inline void bf_add_windows(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_share *restrict share) {
  const int32_t *a = (const int32_t *)(const void *)(arena + step->x) + step->x_start;
  const int32_t *b = (const int32_t *)(const void *)(arena + step->y) + step->y_start;
  int32_t *out = (int32_t *)(void *)(arena + step->out);
  const size_t num_pixels = step->oh * step->ow;
  if (step->c == step->o && step->y_c == step->o) {
    const bf_span part = bf_part_of_elements(num_pixels * step->o, share);
    bf_add_run(a + part.begin, b + part.begin, part.end - part.begin, out + part.begin);
    return;
  }
  const bf_span pixels = bf_part(num_pixels, share);
  for (size_t i = pixels.begin; i < pixels.end; i++) {
    bf_add_run(a + i * step->c, b + i * step->y_c, step->o, out + i * step->o);
  }
}

#endif
