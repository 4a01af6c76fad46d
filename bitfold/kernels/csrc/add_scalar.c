/* out = x + y, int32. */
#include "generic/share.h"

void bf_add_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                          const bf_share *restrict share);

void bf_add_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                          const bf_share *restrict share) {
  const int32_t *a = (const int32_t *)(const void *)(arena + step->x);
  const int32_t *b = (const int32_t *)(const void *)(arena + step->y);
  int32_t *out = (int32_t *)(void *)(arena + step->out);
  const bf_span part = bf_part_of_elements(step->count, share);
  for (size_t i = part.begin; i < part.end; i++) {
    out[i] = a[i] + b[i];
  }
}
