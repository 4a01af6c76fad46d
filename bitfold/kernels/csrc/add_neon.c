/* out = x + y, int32; whole registers: buffers end in 64 spare bytes. */
#include "generic/share.h"
#include "isa/neon.h"

void bf_add_dense__neon(const bf_step *restrict step, uint8_t *restrict arena,
                        const bf_share *restrict share);

void bf_add_dense__neon(const bf_step *restrict step, uint8_t *restrict arena,
                        const bf_share *restrict share) {
  const int32_t *a = (const int32_t *)(const void *)(arena + step->x);
  const int32_t *b = (const int32_t *)(const void *)(arena + step->y);
  int32_t *out = (int32_t *)(void *)(arena + step->out);
  const bf_span part = bf_part_of_elements(step->count, share);
  for (size_t i = part.begin; i < part.end; i += BF_LANES) {
    const size_t left = part.end - i;
    bf_quarters sum = bf_load16(a + i);
    const bf_quarters y = bf_load16(b + i);
    for (size_t k = 0; k < BF_QUARTERS; k++) {
      sum.v[k] = vaddq_s32(sum.v[k], y.v[k]);
    }
    bf_store_wide(sum, left < BF_LANES ? left : BF_LANES, out + i);
  }
}
