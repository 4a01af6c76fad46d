/* out = x + y, int32; whole registers: buffers end in 64 spare bytes. */
#include "isa/neon.h"

static inline void bf_add_run(const int32_t *a, const int32_t *b, size_t count, int32_t *out) {
  for (size_t i = 0; i < count; i += BF_LANES) {
    const size_t left = count - i;
    bf_quarters sum = bf_load16(a + i);
    const bf_quarters y = bf_load16(b + i);
    for (size_t k = 0; k < BF_QUARTERS; k++) {
      sum.v[k] = vaddq_s32(sum.v[k], y.v[k]);
    }
    bf_store_wide(sum, left < BF_LANES ? left : BF_LANES, out + i);
  }
}

#include "generic/add.h"

void bf_add_dense__neon(const bf_step *restrict step, uint8_t *restrict arena,
                        const bf_share *restrict share);

void bf_add_dense__neon(const bf_step *restrict step, uint8_t *restrict arena,
                        const bf_share *restrict share) {
  bf_add_windows(step, arena, share);
}
