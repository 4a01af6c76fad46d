/* out = x + y, int32; whole registers: buffers end in 64 spare bytes. */
#include "generic/share.h"
#include "isa/avx2.h"

void bf_add_dense__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                        const bf_share *restrict share);

void bf_add_dense__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                        const bf_share *restrict share) {
  const int32_t *a = (const int32_t *)(const void *)(arena + step->x);
  const int32_t *b = (const int32_t *)(const void *)(arena + step->y);
  int32_t *out = (int32_t *)(void *)(arena + step->out);
  const bf_span part = bf_part_of_elements(step->count, share);
  for (size_t i = part.begin; i < part.end; i += BF_LANES) {
    const size_t left = part.end - i;
    const bf_pair x = bf_load16(a + i), y = bf_load16(b + i);
    const bf_pair sum = {_mm256_add_epi32(x.lo, y.lo), _mm256_add_epi32(x.hi, y.hi)};
    bf_store_wide(sum, left < BF_LANES ? left : BF_LANES, out + i);
  }
}
