/* Channels x_start … x_start + count - 1 of x -> channels out_start … of out. */
#include <string.h>

#include "bitfold_kernels.h"

void bf_copy_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena);

void bf_copy_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena) {
  const size_t element = step->x_kind == BF_U8 ? 1 : 4;
  const uint8_t *x = arena + step->x + step->x_start * element;
  uint8_t *out = arena + step->out + step->out_start * element;
  for (size_t pixel = 0; pixel < step->h * step->w; pixel++) {
    memcpy(out + pixel * step->o * element, x + pixel * step->c * element, step->count * element);
  }
}
