/* AVX2 register tiles of the direct convolution: 16 channels x up to 6 pixels. */
#ifndef BITFOLD_AVX2_DOT_H
#define BITFOLD_AVX2_DOT_H

#include "generic/conv2d_direct.h"
#include "isa/avx2.h"

enum { BF_SHORT_PIXELS = 6 };

/* Bits of a digit of wide weights. */
enum { BF_BYTE_DIGITS = 8, BF_WORD_DIGITS = 16 };

/* Four input bytes in every 32-bit lane. */
BF_INLINE __m256i bf_broadcast_quad(const uint8_t *p) {
  int32_t quad;
  memcpy(&quad, p, sizeof quad);
  return _mm256_set1_epi32(quad);
}

/* sums = 2^digit_bits * higher + sums; whether they were kept for lower digits of the weights. */
BF_INLINE int bf_add_digit(const bf_tile_place *place, bf_pair *sums, const int digit_bits) {
  for (size_t i = 0; place->higher && i < BF_SHORT_PIXELS; i++) {
    const bf_pair above = bf_load16(place->higher + i * BF_LANES);
    sums[i].lo = _mm256_add_epi32(_mm256_slli_epi32(above.lo, digit_bits), sums[i].lo);
    sums[i].hi = _mm256_add_epi32(_mm256_slli_epi32(above.hi, digit_bits), sums[i].hi);
  }
  for (size_t i = 0; place->kept && i < BF_SHORT_PIXELS; i++) {
    bf_store_wide(sums[i], BF_LANES, place->kept + i * BF_LANES);
  }
  return place->kept != NULL;
}

/* Stores the first `count` of 16 bytes. */
BF_INLINE void bf_store_lanes(__m128i bytes, size_t count, uint8_t *out) {
  uint8_t block[BF_LANES];
  if (count == BF_LANES) {
    _mm_storeu_si128((__m128i *)(void *)out, bytes);
  } else if (count == BF_LANES / 2) {
    _mm_storel_epi64((__m128i *)(void *)out, bytes);
  } else {
    _mm_storeu_si128((__m128i *)(void *)block, bytes);
    memcpy(out, block, count);
  }
}

/* Indices of sums that fit 16 bits, two pixels a register of bytes; the bias is in the table. */
BF_INLINE void bf_finish_short(const bf_step *step, uint8_t *arena, const bf_tile_place *place,
                               const bf_pair *sums, const size_t num_thresholds) {
  const bf_epilogue *e = &step->epilogue;
  const int16_t *table = e->short_table + place->lane * num_thresholds;
  const bf_pair wide_sign = bf_load16(e->sign + place->lane);
  const __m256i sign = _mm256_packs_epi32(wide_sign.lo, wide_sign.hi);
  const __m256i most = _mm256_set1_epi16((short)num_thresholds);
  const __m256i by_pixel = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const size_t num_pixels = place->num_pixels, count = place->count, pitch = step->o;
  uint8_t *out = arena + step->out + place->at;
  __m256i bounds[BF_FEW_THRESHOLDS], index[BF_SHORT_PIXELS];
  for (size_t j = 0; j < num_thresholds; j++) {
    bounds[j] = _mm256_loadu_si256((const __m256i *)(const void *)(table + j * BF_LANES));
  }
  for (size_t i = 0; i < BF_SHORT_PIXELS; i++) {
    const __m256i x = _mm256_sign_epi16(_mm256_packs_epi32(sums[i].lo, sums[i].hi), sign);
    index[i] = most;
    for (size_t j = 0; j < num_thresholds; j++) {
      index[i] = _mm256_add_epi16(index[i], _mm256_cmpgt_epi16(bounds[j], x));
    }
  }
  for (size_t i = 0; i < num_pixels; i += 2) {
    const __m256i bytes =
        _mm256_permutevar8x32_epi32(_mm256_packus_epi16(index[i], index[i + 1]), by_pixel);
    bf_store_lanes(_mm256_castsi256_si128(bytes), count, out + i * pitch);
    if (i + 1 < num_pixels) {
      bf_store_lanes(_mm256_extracti128_si256(bytes, 1), count, out + (i + 1) * pitch);
    }
  }
}

/* acc = bias + x_step * sum, then the epilogue; of wide weights behind the last digit. */
BF_INLINE void bf_finish_tile(const bf_step *step, uint8_t *arena, const bf_tile_place *place,
                              bf_pair *sums, const int digit_bits) {
  int32_t acc[BF_SHORT_PIXELS * BF_LANES];
  if (step->epilogue.short_table) {
    if (step->epilogue.num_thresholds == 3) {
      bf_finish_short(step, arena, place, sums, 3);
    } else if (step->epilogue.num_thresholds == 2) {
      bf_finish_short(step, arena, place, sums, 2);
    } else {
      bf_finish_short(step, arena, place, sums, 1);
    }
    return;
  }
  const bf_pair bias = bf_load16(step->bias + place->lane);
  const __m256i x_step = _mm256_set1_epi32(step->x_step);
  const int scaled = step->x_step != 1;
  if (bf_add_digit(place, sums, digit_bits)) {
    return;
  }
  for (size_t i = 0; i < BF_SHORT_PIXELS; i++) {
    const __m256i lo = scaled ? _mm256_mullo_epi32(sums[i].lo, x_step) : sums[i].lo;
    const __m256i hi = scaled ? _mm256_mullo_epi32(sums[i].hi, x_step) : sums[i].hi;
    const bf_pair total = {_mm256_add_epi32(lo, bias.lo), _mm256_add_epi32(hi, bias.hi)};
    bf_store_wide(total, BF_LANES, acc + i * BF_LANES);
  }
  const bf_rows rows = {.acc = acc,
                        .stride = BF_LANES,
                        .num_pixels = place->num_pixels,
                        .lane = place->lane,
                        .count = place->count,
                        .at = place->at};
  bf_finish_rows(step, arena, &rows);
}

#define BF_EACH_OF_6(f) f(0) f(1) f(2) f(3) f(4) f(5)

#define BF_SHORT_ZERO(i) __m256i lo##i = zero, hi##i = zero;

#define BF_SHORT_POINTER(i) const uint8_t *x##i = place->windows[i] + segment.offset;

#define BF_SHORT_QUAD(i)                                          \
  x = bf_broadcast_quad(x##i + at);                               \
  lo##i = _mm256_add_epi16(lo##i, _mm256_maddubs_epi16(x, w_lo)); \
  hi##i = _mm256_add_epi16(hi##i, _mm256_maddubs_epi16(x, w_hi));

#define BF_SHORT_FLUSH(i)                                                    \
  sums[i].lo = _mm256_add_epi32(sums[i].lo, _mm256_madd_epi16(lo##i, ones)); \
  sums[i].hi = _mm256_add_epi32(sums[i].hi, _mm256_madd_epi16(hi##i, ones)); \
  lo##i = hi##i = zero;

#define BF_SHORT_LAST(i)                       \
  sums[i].lo = _mm256_madd_epi16(lo##i, ones); \
  sums[i].hi = _mm256_madd_epi16(hi##i, ones);

/* Products in 16 bits: callers prove 2 * max index * max |weight| <= 32767 and set the flushes. */
BF_INLINE void bf_tile_short(const bf_step *restrict step, uint8_t *restrict arena,
                             const bf_tile_place *restrict place) {
  const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
  const __m256i *weight = place->panel;
  bf_pair sums[BF_SHORT_PIXELS];
  BF_EACH_OF_6(BF_SHORT_ZERO)
  if (step->has_flushes) {
    memset(sums, 0, sizeof sums);
  }
  for (size_t s = 0; s < step->num_segments; s++) {
    const bf_segment segment = step->segments[s];
    BF_EACH_OF_6(BF_SHORT_POINTER)
    for (size_t at = 0; at < 4 * segment.num_quads; at += 4) {
      const __m256i w_lo = _mm256_loadu_si256(weight);
      const __m256i w_hi = _mm256_loadu_si256(weight + 1);
      __m256i x;
      BF_EACH_OF_6(BF_SHORT_QUAD)
      weight += 2;
    }
    if (segment.flush) {
      BF_EACH_OF_6(BF_SHORT_FLUSH)
    }
  }
  if (step->has_flushes) {
    BF_EACH_OF_6(BF_SHORT_FLUSH)
  } else {
    BF_EACH_OF_6(BF_SHORT_LAST)
  }
  bf_finish_tile(step, arena, place, sums, BF_BYTE_DIGITS);
}

/* sum + products of what two registers hold in every 32-bit lane */
typedef __m256i (*bf_adder)(__m256i sum, __m256i x, __m256i w);

#define BF_WIDE_QUAD(i)             \
  x = bf_broadcast_quad(x##i + at); \
  lo##i = add(lo##i, x, w_lo);      \
  hi##i = add(hi##i, x, w_hi);

#define BF_WIDE_LAST(i) sums[i] = (bf_pair){lo##i, hi##i};

/* Sums in 32 bits: no flushes. */
BF_INLINE void bf_tile_by(const bf_step *restrict step, uint8_t *restrict arena,
                          const bf_tile_place *restrict place, const bf_adder add,
                          const int digit_bits) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i *weight = place->panel;
  bf_pair sums[BF_SHORT_PIXELS];
  BF_EACH_OF_6(BF_SHORT_ZERO)
  for (size_t s = 0; s < step->num_segments; s++) {
    const bf_segment segment = step->segments[s];
    BF_EACH_OF_6(BF_SHORT_POINTER)
    for (size_t at = 0; at < 4 * segment.num_quads; at += 4) {
      const __m256i w_lo = _mm256_loadu_si256(weight);
      const __m256i w_hi = _mm256_loadu_si256(weight + 1);
      __m256i x;
      BF_EACH_OF_6(BF_WIDE_QUAD)
      weight += 2;
    }
  }
  BF_EACH_OF_6(BF_WIDE_LAST)
  bf_finish_tile(step, arena, place, sums, digit_bits);
}

BF_INLINE __m256i bf_add_words(__m256i sum, __m256i x, __m256i w) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w));
}

/* Products of words: for operands too large for bf_tile_short. */
BF_INLINE void bf_tile_wide(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_tile_place *restrict place) {
  bf_tile_by(step, arena, place, bf_add_words, BF_WORD_DIGITS);
}

#endif
