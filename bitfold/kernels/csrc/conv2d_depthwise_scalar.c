/* acc[c] = bias[c] + x_step * sum(index[c] * weight[c]), channel by channel. */
#include "generic/conv2d_depthwise.h"

/* sums[16] += a pair of taps times [16][2] weights; unsigned, so that it wraps
 */
static inline void bf_add_taps(const uint8_t *restrict a, const uint8_t *restrict b,
                               const int8_t *restrict weight, size_t count,
                               uint32_t *restrict sums) {
  for (size_t i = 0; i < count; i++) {
    sums[i] += (uint32_t)(a[i] * weight[2 * i] + b[i] * weight[2 * i + 1]);
  }
}

static inline void bf_run_scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_run *restrict run) {
  for (size_t i = 0; i < run->num_pixels; i++) {
    for (size_t lane = 0; lane < step->c; lane += BF_LANES) {
      const int8_t *panel = (const int8_t *)step->weight + lane / BF_LANES * step->panel_bytes;
      const size_t left = step->c - lane, count = left < BF_LANES ? left : BF_LANES;
      const size_t offset = i * run->pitch + lane;
      uint32_t sums[BF_LANES] = {0};
      int32_t acc[BF_LANES];
      for (size_t k = 0; k < run->num_pairs; k++) {
        bf_add_taps(run->taps[2 * k] + offset, run->taps[2 * k + 1] + offset,
                    panel + k * 2 * BF_LANES, count, sums);
      }
      for (size_t j = 0; j < count; j++) {
        acc[j] = (int32_t)((uint32_t)step->bias[lane + j] + (uint32_t)step->x_step * sums[j]);
      }
      bf_finish(step, arena, acc, lane, count, run->at + i * step->o + lane);
    }
  }
}

void bf_conv2d_depthwise__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_share *restrict share);

void bf_conv2d_depthwise__scalar(const bf_step *restrict step, uint8_t *restrict arena,
                                 const bf_share *restrict share) {
  bf_convolve_channels(step, arena, share, bf_run_scalar);
}
