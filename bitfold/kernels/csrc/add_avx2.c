/* out = x + y, int32; whole registers: buffers end in 64 spare bytes. */
#include "isa/avx2.h"

static inline void bf_add_run(const int32_t *a, const int32_t *b, size_t count, int32_t *out) {
  for (size_t i = 0; i < count; i += BF_LANES) {
    const size_t left = count - i;
    const bf_pair x = bf_load16(a + i), y = bf_load16(b + i);
    const bf_pair sum = {_mm256_add_epi32(x.lo, y.lo), _mm256_add_epi32(x.hi, y.hi)};
    bf_store_wide(sum, left < BF_LANES ? left : BF_LANES, out + i);
  }
}

#include "generic/add.h"

void bf_add_dense__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                        const bf_share *restrict share);

void bf_add_dense__avx2(const bf_step *restrict step, uint8_t *restrict arena,
                        const bf_share *restrict share) {
  bf_add_windows(step, arena, share);
}
