/* index[c] = #{j : table[j][c] <= sign[c] * x[c]}: int32 -> u8. */
#include "generic/lanewise.h"
#include "isa/avx2.h"

BF_INLINE void bf_finish_block(const bf_step *restrict step, uint8_t *arena, const int32_t *acc,
                               size_t lane, size_t count, size_t at) {
  bf_finish16(step, arena, bf_load16(acc), lane, count, at);
}

void bf_thresholds_dense__avx2(const bf_step *restrict step, uint8_t *restrict arena);

void bf_thresholds_dense__avx2(const bf_step *restrict step, uint8_t *restrict arena) {
  bf_finish_all(step, arena, bf_finish_block);
}
