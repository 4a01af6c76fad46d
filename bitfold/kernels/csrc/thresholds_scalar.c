/* index[c] = #{j : table[j][c] <= sign[c] * x[c]}: int32 -> u8. */
#include "generic/lanewise.h"

void bf_thresholds_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena);

void bf_thresholds_dense__scalar(const bf_step *restrict step, uint8_t *restrict arena) {
  bf_finish_tensor(step, arena);
}
