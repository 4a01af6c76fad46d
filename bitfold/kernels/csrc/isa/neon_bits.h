/* NEON primitives of the bit-serial convolution: bit planes and population counts (cnt). */
#ifndef BITFOLD_NEON_BITS_H
#define BITFOLD_NEON_BITS_H

#include "generic/conv2d_bitserial.h"
#include "isa/neon.h"

/* Bit p of 16 bytes, at the bit of a byte where a plane holds it. */
BF_INLINE uint8x16_t bf_plane_bits(uint8x16_t x, uint8x16_t bit, uint8x16_t place) {
  return vandq_u8(vtstq_u8(x, bit), place);
}

BF_INLINE void bf_pack_neon(const uint8_t *restrict bytes, size_t num_words, size_t num_planes,
                            uint32_t *restrict planes) {
  const uint8x16_t place = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
  for (size_t k = 0; k < num_words; k++) {
    const uint8x16_t lo = vld1q_u8(bytes + 32 * k), hi = vld1q_u8(bytes + 32 * k + 16);
    for (size_t p = 0; p < num_planes; p++) {
      const uint8x16_t bit = vdupq_n_u8((uint8_t)(1u << p));
      uint8x16_t sum = vpaddq_u8(bf_plane_bits(lo, bit, place), bf_plane_bits(hi, bit, place));
      sum = vpaddq_u8(sum, sum);
      sum = vpaddq_u8(sum, sum);
      planes[p * num_words + k] = vgetq_lane_u32(vreinterpretq_u32_u8(sum), 0);
    }
  }
}

enum { BF_CNT_WORDS = 31 }; /* a byte counts up to 8 ones a word */

/* counts[4 lanes] += 16 sums of bytes, four a lane */
BF_INLINE uint32x4_t bf_add_counts(uint32x4_t counts, uint8x16_t bytes) {
  return vpadalq_u16(counts, vpaddlq_u8(bytes));
}

/* What meets a word of the input in four lanes; `second` words behind `w` lies the other plane. */
BF_INLINE uint8x16_t bf_meet_neon(const size_t op, uint8x16_t x, const uint32_t *w, size_t second) {
  const uint8x16_t first = vreinterpretq_u8_u32(vld1q_u32(w));
  if (op == BF_PLANE_AND) {
    return vandq_u8(x, first);
  }
  if (op == BF_PLANE_XOR) {
    return veorq_u8(x, first);
  }
  return vandq_u8(first, veorq_u8(x, vreinterpretq_u8_u32(vld1q_u32(w + second))));
}

/* totals[16 lanes] = ones of one plane pair over all words */
BF_INLINE void bf_count_plane(const size_t op, const uint32_t *restrict x,
                              const uint32_t *restrict w, size_t num_words,
                              uint32x4_t *restrict totals) {
  const size_t second = num_words * BF_LANES;
  totals[0] = totals[1] = totals[2] = totals[3] = vdupq_n_u32(0);
  for (size_t first = 0; first < num_words; first += BF_CNT_WORDS) {
    const size_t end = first + BF_CNT_WORDS < num_words ? first + BF_CNT_WORDS : num_words;
    uint8x16_t a = vdupq_n_u8(0), b = a, c = a, d = a;
    for (size_t k = first; k < end; k++) {
      const uint8x16_t word = vreinterpretq_u8_u32(vdupq_n_u32(x[k]));
      const uint32_t *lanes = w + k * BF_LANES;
      a = vaddq_u8(a, vcntq_u8(bf_meet_neon(op, word, lanes, second)));
      b = vaddq_u8(b, vcntq_u8(bf_meet_neon(op, word, lanes + 4, second)));
      c = vaddq_u8(c, vcntq_u8(bf_meet_neon(op, word, lanes + 8, second)));
      d = vaddq_u8(d, vcntq_u8(bf_meet_neon(op, word, lanes + 12, second)));
    }
    totals[0] = bf_add_counts(totals[0], a);
    totals[1] = bf_add_counts(totals[1], b);
    totals[2] = bf_add_counts(totals[2], c);
    totals[3] = bf_add_counts(totals[3], d);
  }
}

BF_INLINE void bf_dot_planes(const size_t op, const bf_step *restrict step,
                             const uint32_t *restrict x, const uint32_t *restrict w,
                             uint32_t *restrict dots) {
  const size_t num_words = step->num_words;
  uint32x4_t sums[BF_QUARTERS], totals[BF_QUARTERS];
  memset(sums, 0, sizeof sums);
  for (size_t q = 0; q < step->w_planes; q++) {
    for (size_t p = 0; p < step->x_planes; p++) {
      const int32x4_t shift = vdupq_n_s32((int32_t)(p + q));
      bf_count_plane(op, x + p * num_words, w + q * num_words * BF_LANES, num_words, totals);
      for (size_t i = 0; i < BF_QUARTERS; i++) {
        sums[i] = vaddq_u32(sums[i], vshlq_u32(totals[i], shift));
      }
    }
  }
  for (size_t i = 0; i < BF_QUARTERS; i++) {
    vst1q_u32(dots + 4 * i, sums[i]);
  }
}

BF_INLINE void bf_dot_neon(const bf_step *restrict step, const uint32_t *restrict x,
                           const uint32_t *restrict w, uint32_t *restrict dots) {
  switch (((const bf_planes *)step->extra)->op) {
  case BF_PLANE_AND:
    bf_dot_planes(BF_PLANE_AND, step, x, w, dots);
    break;
  case BF_PLANE_XOR:
    bf_dot_planes(BF_PLANE_XOR, step, x, w, dots);
    break;
  default:
    bf_dot_planes(BF_PLANE_SELECT, step, x, w, dots);
  }
}

#endif
