/* out = x + y, int32. */
#include "bitfold_kernels.h"

static inline void bf_add_run(const int32_t *a, const int32_t *b, size_t count, int32_t *out) {
  for (size_t i = 0; i < count; i++) {
    out[i] = a[i] + b[i];
  }
}

#include "generic/add.h"

void bf_add_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                          const bf_share *restrict share);

void bf_add_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                          const bf_share *restrict share) {
  bf_add_windows(step, arena, share);
}
