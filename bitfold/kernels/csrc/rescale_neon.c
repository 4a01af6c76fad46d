/* Fixed-point update of int32 values or u8 indices -> int32. */
#include "isa/neon.h"
#include "generic/lanewise_strips.h"

void bf_rescale_dense__neon(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share);

void bf_rescale_dense__neon(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_share *restrict share) {
  bf_finish_strips(step, arena, share);
}
