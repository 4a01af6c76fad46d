/* Channels x_start … x_start + count - 1 of x -> channels out_start … of out, `repeats` times. */
#include <string.h>

#include "generic/share.h"

void bf_copy_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                           const bf_share *restrict share);

void bf_copy_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                           const bf_share *restrict share) {
  const size_t element = step->x_kind == BF_U8 ? 1 : 4;
  const uint8_t *x = arena + step->x + step->x_start * element;
  uint8_t *out = arena + step->out + step->out_start * element;
  const bf_span pixels = bf_part(step->h * step->w, share);
  for (size_t pixel = pixels.begin; pixel < pixels.end; pixel++) {
    const uint8_t *from = x + pixel * step->c * element;
    uint8_t *to = out + pixel * step->o * element;
    for (size_t i = 0; i < step->repeats; i++) {
      memcpy(to + i * step->count * element, from, step->count * element);
    }
  }
}
