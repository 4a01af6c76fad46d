/* out = x + y, int32. */
#include "bitfold_kernels.h"

void bf_add_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena);

void bf_add_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena) {
  const int32_t *a = (const int32_t *)(const void *)(arena + step->x);
  const int32_t *b = (const int32_t *)(const void *)(arena + step->y);
  int32_t *out = (int32_t *)(void *)(arena + step->out);
  for (size_t i = 0; i < step->count; i++) {
    out[i] = a[i] + b[i];
  }
}
