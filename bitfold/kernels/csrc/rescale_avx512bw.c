/* Fixed-point update of int32 values or u8 indices -> int32. */
#define BF_FINISH_ROWS bf_finish_wide_rows

#include "isa/avx512_finish.h"
#include "generic/lanewise_strips.h"

void bf_rescale_dense__avx512bw(const bf_step *restrict step, uint8_t *restrict arena,
                                const bf_share *restrict share);

void bf_rescale_dense__avx512bw(const bf_step *restrict step, uint8_t *restrict arena,
                                const bf_share *restrict share) {
  bf_finish_strips(step, arena, share);
}
