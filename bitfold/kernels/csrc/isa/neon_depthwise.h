/* NEON tile of the depthwise convolution: 16 channels x up to 4 pixels, sums in 32 bits. */
#ifndef BITFOLD_NEON_DEPTHWISE_H
#define BITFOLD_NEON_DEPTHWISE_H

#include "generic/conv2d_depthwise.h"
#include "isa/neon.h"

enum { BF_RUN_PIXELS = 4 };

/* sums += x * w, 16 channels of one tap; indices and codes are widened to 16 bits first. */
BF_INLINE bf_quarters bf_add_tap(bf_quarters sums, uint8x16_t x, int8x16_t w) {
  const int16x8_t x_lo = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x)));
  const int16x8_t x_hi = vreinterpretq_s16_u16(vmovl_high_u8(x));
  const int16x8_t w_lo = vmovl_s8(vget_low_s8(w)), w_hi = vmovl_high_s8(w);
  sums.v[0] = vmlal_s16(sums.v[0], vget_low_s16(x_lo), vget_low_s16(w_lo));
  sums.v[1] = vmlal_high_s16(sums.v[1], x_lo, w_lo);
  sums.v[2] = vmlal_s16(sums.v[2], vget_low_s16(x_hi), vget_low_s16(w_hi));
  sums.v[3] = vmlal_high_s16(sums.v[3], x_hi, w_hi);
  return sums;
}

/* Accumulators of the 16 channels from `lane` at one pixel, whose taps lie `offset` bytes from
 * those of the run.
 */
BF_INLINE void bf_channel_sums(const bf_step *step, const bf_run *run, size_t lane, size_t offset,
                               int32_t *acc) {
  const int8_t *panel = (const int8_t *)step->weight + lane / BF_LANES * step->panel_bytes;
  const bf_quarters bias = bf_load16(step->bias + lane);
  bf_quarters sums = {{vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)}};
  for (size_t k = 0; k < run->num_pairs; k++) {
    const int8x16x2_t w = vld2q_s8(panel + 2 * k * BF_LANES);
    sums = bf_add_tap(sums, vld1q_u8(run->taps[2 * k] + offset), w.val[0]);
    sums = bf_add_tap(sums, vld1q_u8(run->taps[2 * k + 1] + offset), w.val[1]);
  }
  for (size_t i = 0; i < BF_QUARTERS; i++) {
    vst1q_s32(acc + 4 * i, vmlaq_n_s32(bias.v[i], sums.v[i], step->x_step));
  }
}

/* Up to four pixels from `pixel`: the epilogue's constants are loaded once for them. */
BF_INLINE void bf_finish_channels(const bf_step *step, uint8_t *arena, const bf_run *run,
                                  size_t lane, size_t pixel) {
  const size_t lanes_left = step->c - lane, pixels_left = run->num_pixels - pixel;
  int32_t acc[BF_RUN_PIXELS * BF_LANES];
  const bf_rows rows = {.acc = acc,
                        .stride = BF_LANES,
                        .num_pixels = pixels_left < BF_RUN_PIXELS ? pixels_left : BF_RUN_PIXELS,
                        .lane = lane,
                        .count = lanes_left < BF_LANES ? lanes_left : BF_LANES,
                        .at = run->at + pixel * step->o + lane};
  for (size_t i = 0; i < rows.num_pixels; i++) {
    bf_channel_sums(step, run, lane, (pixel + i) * run->pitch + lane, acc + i * BF_LANES);
  }
  bf_finish_rows(step, arena, &rows);
}

static inline void bf_run_neon(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_run *restrict run) {
  for (size_t pixel = 0; pixel < run->num_pixels; pixel += BF_RUN_PIXELS) {
    for (size_t lane = 0; lane < step->c; lane += BF_LANES) {
      bf_finish_channels(step, arena, run, lane, pixel);
    }
  }
}

#endif
